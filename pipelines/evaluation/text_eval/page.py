"""The judge's report: one HTML page that holds everything it shows, and evaluation.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dsmoe_core.atomic import atomic_folder
from pipelines.evaluation.report import page
from pipelines.evaluation.report.page import svg
from pipelines.evaluation.text_eval.runs import FIGURES

REPORT_FILES = ("report.html", "evaluation.json")
LABELS = {"map": "mAP@.5:.95", "map50": "mAP@.5", "margin": "confusion margin"}
SPACES = {"ball": "in the Poincare ball, d_H", "embedding": "of the text encoder, 1 - cosine"}


def check(folder: Path) -> None:
    """Find out before the work begins that a report can be written there.

    Raises:
        PrerequisiteError: what draws it is not installed.
        WorkspaceError: the folder holds something else.
    """
    page.check(folder, REPORT_FILES)


def write(folder: Path, measured: Mapping[str, Any]) -> None:
    """Write report.html and evaluation.json; an older report gives way as a whole.

    Raises:
        WorkspaceError: the folder holds something else.
        PrerequisiteError: the disk is full.
    """
    with atomic_folder(folder, REPORT_FILES) as draft:
        (draft / "evaluation.json").write_text(page.metrics_json(measured), encoding="utf-8")
        (draft / "report.html").write_text(render_page(measured), encoding="utf-8")


def render_page(measured: Mapping[str, Any]) -> str:
    """The page, of what ``judging.judge`` measured."""
    from pipelines.evaluation.report.charts import heat_chart

    names = [row["name"] for row in measured["classes"]]
    sides = {"this": f"A: {measured['book']}", "other": f"B: {measured['against']}"}
    spaces = {
        label: svg(heat_chart(tables, names, names))
        for space, label in SPACES.items()
        if (
            tables := {
                t: measured["distances"][s][space] for s, t in sides.items() if _has(measured, s, space)
            }
        )
    }
    experts = {
        title: measured["experts"][side] for side, title in sides.items() if side in measured["experts"]
    }
    most = max((len(table[0]) for table in experts.values()), default=0)
    filled = {title: [row + [0.0] * (most - len(row)) for row in table] for title, table in experts.items()}
    return page.template(Path(__file__).with_name("page.html")).render(
        m=measured,
        labels={name: LABELS[name] for name in sorted(FIGURES, key=list(LABELS).index)},
        forests=[(label, svg(chart)) for label, chart in _forests(measured)],
        spaces=spaces,
        experts=svg(heat_chart(filled, names, [str(i) for i in range(most)])) if filled else None,
    )


def _has(measured: Mapping[str, Any], side: str, space: str) -> bool:
    return space in measured["distances"].get(side, {})


def _forests(measured: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A plot for each figure: every class, and the mean last."""
    from pipelines.evaluation.report.charts import forest_chart

    answer = []
    for name, label in LABELS.items():
        known = [*measured["classes"], {"name": "mean", **measured["total"]}]
        rows = [(row["name"], row[name]["delta"], tuple(row[name]["ci95"])) for row in known if name in row]
        answer.append((label, forest_chart(rows, "gain of A over B")))
    return answer
