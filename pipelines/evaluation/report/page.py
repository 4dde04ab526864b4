"""The report: one HTML page that holds everything it shows and asks no other file or host for anything."""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsmoe_core.atomic import atomic_folder, refuse_unknown_files
from dsmoe_core.errors import PrerequisiteError
from dsmoe_core.evaluation.matching import ImageMatches
from pipelines.evaluation.report.worst import COLOURS, draw

if TYPE_CHECKING:
    from jinja2 import Template

REPORT_FILES = ("report.html", "evaluation.json", "worst")
NOTHING = "-"


def check(folder: Path, ours: Collection[str] = REPORT_FILES) -> None:
    """Find out before the work begins that a report can be written there.

    Args:
        ours: what an older report may have left in it.

    Raises:
        PrerequisiteError: what draws it is not installed.
        WorkspaceError: the folder holds something else.
    """
    if missing := [name for name in ("jinja2", "matplotlib") if find_spec(name) is None]:
        raise PrerequisiteError(
            f"the package {missing[0]} is not installed", "Install the extra: `pip install 'dsmoe[report]'`."
        )
    refuse_unknown_files(folder, ours)


def write(
    folder: Path, measured: Mapping[str, Any], worst: Sequence[tuple[ImageMatches, Mapping[str, Any]]]
) -> None:
    """Write report.html, evaluation.json and the worst images; an older report gives way as a whole.

    Raises:
        WorkspaceError: the folder holds something else.
        PrerequisiteError: the disk is full.
    """
    with atomic_folder(folder, REPORT_FILES) as draft:
        (draft / "worst").mkdir()
        images = []
        for image, said in worst:
            jpeg = draw(image, measured["threshold"])
            (draft / "worst" / said["file"]).write_bytes(jpeg)
            images.append((said, _data("image/jpeg", jpeg)))
        (draft / "evaluation.json").write_text(metrics_json(measured), encoding="utf-8")
        (draft / "report.html").write_text(render_page(measured, images), encoding="utf-8")


def metrics_json(measured: Mapping[str, Any]) -> str:
    """The figures as they are kept."""
    return json.dumps(measured, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def render_page(measured: Mapping[str, Any], images: Sequence[tuple[Mapping[str, Any], str]]) -> str:
    """The page.

    Args:
        images: what is said of each of the worst images, and its drawing as a data URI.
    """
    from pipelines.evaluation.report.charts import curve_chart, reliability_chart

    total = measured["total"]
    curves = [
        (c["name"], svg(curve_chart(c["curve"], c.get("best") or c["given"])))
        for c in measured["classes"]
        if "curve" in c
    ]
    return template(Path(__file__).with_name("page.html")).render(
        m=measured,
        total=total,
        point=total.get("best") or total["given"],
        curves=curves,
        reliability=svg(reliability_chart(measured["calibration"]["bins"])),
        colours=COLOURS,
        images=images,
    )


def template(path: Path) -> Template:
    """A page's template, which may extend base.html, with what shows figures as filters."""
    from jinja2 import ChainableUndefined, Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader([path.parent, Path(__file__).parent]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=ChainableUndefined,  # what is not defined is absent, and shown as such
    )
    for show in (share, signed, interval, count, boxes):
        environment.filters[show.__name__] = show
    return environment.get_template(path.name)


def svg(text: str) -> str:
    """A drawing as a data URI."""
    return _data("image/svg+xml", text.encode())


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def share(value: Any) -> str:
    """A figure between 0 and 1."""
    return f"{value:.3f}" if isinstance(value, int | float) else NOTHING


def signed(value: Any) -> str:
    """A difference."""
    return f"{value:+.3f}" if isinstance(value, int | float) else NOTHING


def interval(ends: Any) -> str:
    """Both ends of an interval; nothing where there is none."""
    return f"[{ends[0]:.3f}, {ends[1]:.3f}]" if isinstance(ends, list | tuple) else ""


def count(value: int) -> str:
    """A number of things."""
    return f"{value:,}"


def boxes(value: int) -> str:
    """A number of boxes, in words."""
    return "1 box" if value == 1 else f"{value:,} boxes"
