"""The report on a class book: a self-contained HTML page and evaluation.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dsmoe_core.atomic import atomic_folder
from pipelines.evaluation.report import page
from pipelines.evaluation.report.page import svg_uri
from pipelines.evaluation.text_eval.runs import METRICS

REPORT_FILES = ("report.html", "evaluation.json")
LABELS = {"map": "mAP@.5:.95", "map50": "mAP@.5", "margin": "confusion margin"}
SPACES = {"ball": "in the Poincare ball, d_H", "embedding": "of the text embeddings, 1 - cosine"}


def check_report_folder(folder: Path) -> None:
    """Check, before the long computation, that a report can be written to a folder.

    Raises:
        PrerequisiteError: a package of the extra ``report`` is not installed.
        WorkspaceError: the folder holds other files.
    """
    page.check_report_folder(folder, REPORT_FILES)


def write_report(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Write report.html and evaluation.json; replaces an older report atomically.

    Raises:
        WorkspaceError: the folder holds other files.
        PrerequisiteError: the disk is full.
    """
    with atomic_folder(folder, REPORT_FILES) as draft:
        (draft / "evaluation.json").write_text(page.metrics_json(metrics), encoding="utf-8")
        (draft / "report.html").write_text(render_page(metrics), encoding="utf-8")


def render_page(metrics: Mapping[str, Any]) -> str:
    """Render the page from the result of ``evaluate.evaluate_class_book``."""
    from pipelines.evaluation.report.charts import heat_chart

    names = [row["name"] for row in metrics["classes"]]
    titles = {"this": f"A: {metrics['book']}", "other": f"B: {metrics['against']}"}
    spaces = {
        label: svg_uri(heat_chart(tables, names, names))
        for space, label in SPACES.items()
        if (tables := _distance_tables(metrics, space, titles))
    }
    experts = {
        title: metrics["experts"][side] for side, title in titles.items() if side in metrics["experts"]
    }
    max_experts = max((len(table[0]) for table in experts.values()), default=0)
    padded = {
        title: [row + [0.0] * (max_experts - len(row)) for row in table] for title, table in experts.items()
    }
    columns = [str(i) for i in range(max_experts)]
    return page.load_template(Path(__file__).with_name("page.html")).render(
        m=metrics,
        labels={name: LABELS[name] for name in sorted(METRICS, key=list(LABELS).index)},
        forests=[(label, svg_uri(chart)) for label, chart in _forest_charts(metrics)],
        spaces=spaces,
        experts=svg_uri(heat_chart(padded, names, columns)) if padded else None,
    )


def _distance_tables(metrics: Mapping[str, Any], space: str, titles: Mapping[str, str]) -> dict[str, Any]:
    """Distance tables of both books by title, where they are defined."""
    distances = metrics["distances"]
    return {
        title: distances[side][space] for side, title in titles.items() if space in distances.get(side, {})
    }


def _forest_charts(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A chart for each metric, with one row per class and the mean in the last row."""
    from pipelines.evaluation.report.charts import forest_chart

    charts = []
    for name, label in LABELS.items():
        known = [*metrics["classes"], {"name": "mean", **metrics["total"]}]
        rows = [(row["name"], row[name]["delta"], tuple(row[name]["ci95"])) for row in known if name in row]
        charts.append((label, forest_chart(rows, "gain of A over B")))
    return charts
