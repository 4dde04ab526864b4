"""The HTML page of the evaluation report. It is self-contained: images and charts are embedded."""

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
from dsmoe_core.plain_text import visible
from pipelines.evaluation.report.worst import COLOURS, render_image

if TYPE_CHECKING:
    from jinja2 import Template

REPORT_FILES = ("report.html", "evaluation.json", "worst")
UNDEFINED = "-"
"""Shown for an undefined value."""


def check_report_folder(folder: Path, replaceable: Collection[str] = REPORT_FILES) -> None:
    """Check, before the long computation, that a report can be written to a folder.

    Args:
        replaceable: file names of an older report.

    Raises:
        PrerequisiteError: a package of the extra ``report`` is not installed.
        WorkspaceError: the folder holds other files.
    """
    if missing := [name for name in ("jinja2", "matplotlib") if find_spec(name) is None]:
        raise PrerequisiteError(
            f"the package {missing[0]} is not installed", "Install the extra: `pip install 'dsmoe[report]'`."
        )
    refuse_unknown_files(folder, replaceable)


def write_report(
    folder: Path, metrics: Mapping[str, Any], worst: Sequence[tuple[ImageMatches, Mapping[str, Any]]]
) -> None:
    """Write report.html, evaluation.json and the worst images; replaces an older report atomically.

    Raises:
        WorkspaceError: the folder holds other files.
        PrerequisiteError: the disk is full.
    """
    with atomic_folder(folder, REPORT_FILES) as draft:
        (draft / "worst").mkdir()
        images = []
        for image, summary in worst:
            jpeg = render_image(image, metrics["threshold"])
            (draft / "worst" / summary["file"]).write_bytes(jpeg)
            images.append((summary, _data_uri("image/jpeg", jpeg)))
        (draft / "evaluation.json").write_text(metrics_json(metrics), encoding="utf-8")
        (draft / "report.html").write_text(render_page(metrics, images), encoding="utf-8")


def metrics_json(metrics: Mapping[str, Any]) -> str:
    """The text of a metrics file."""
    return json.dumps(metrics, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def render_page(metrics: Mapping[str, Any], images: Sequence[tuple[Mapping[str, Any], str]]) -> str:
    """Render the page.

    Args:
        images: summary and data URI of each of the worst images.
    """
    from pipelines.evaluation.report.charts import curve_chart, reliability_chart

    total = metrics["total"]
    curves = [
        (c["name"], svg_uri(curve_chart(c["curve"], c.get("best") or c["given"])))
        for c in metrics["classes"]
        if "curve" in c
    ]
    return load_template(Path(__file__).with_name("page.html")).render(
        m=metrics,
        total=total,
        point=total.get("best") or total["given"],
        curves=curves,
        reliability=svg_uri(reliability_chart(metrics["calibration"]["bins"])),
        colours=COLOURS,
        images=images,
    )


def load_template(path: Path) -> Template:
    """Load a page template, which may extend base.html, with the number formats of this module as filters."""
    from jinja2 import ChainableUndefined, Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader([path.parent, Path(__file__).parent]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=ChainableUndefined,  # undefined metrics are absent
        finalize=lambda value: visible(value) if isinstance(value, str) else value,
    )
    for number_format in (share, signed, interval, count, boxes):
        environment.filters[number_format.__name__] = number_format
    return environment.get_template(path.name)


def svg_uri(text: str) -> str:
    """An SVG as a data URI."""
    return _data_uri("image/svg+xml", text.encode())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def share(value: Any) -> str:
    """A number between 0 and 1."""
    return f"{value:.3f}" if isinstance(value, int | float) else UNDEFINED


def signed(value: Any) -> str:
    """A difference, with its sign."""
    return f"{value:+.3f}" if isinstance(value, int | float) else UNDEFINED


def interval(ends: Any) -> str:
    """An interval; empty if it is undefined."""
    return f"[{ends[0]:.3f}, {ends[1]:.3f}]" if isinstance(ends, list | tuple) else ""


def count(value: int) -> str:
    """A number of items, with thousands separators."""
    return f"{value:,}"


def boxes(value: int) -> str:
    """A number of boxes, with the noun."""
    return "1 box" if value == 1 else f"{value:,} boxes"
