"""Charts of the reports as self-contained SVG texts."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dsmoe_core.plain_text import on_one_line

BLUE, ORANGE, GREY, INK = "#0b6e99", "#b06a00", "#9aa7b0", "#17242d"
MAX_VALUE_COLUMNS = 12
"""A heat map with more columns shows colours without values."""
MAX_LABEL = 32
"""Most characters of a name in a chart."""
_STYLE: dict[Any, Any] = {
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": "sans-serif",
    "font.size": 9,
    "svg.fonttype": "none",  # keep text as text
    "svg.hashsalt": "dsmoe",  # reproducible files
    "text.parse_math": False,  # $ is a plain character
    "xtick.color": INK,
    "ytick.color": INK,
}


def curve_chart(curve: Mapping[str, Sequence[float]], point: Mapping[str, Any] | None) -> str:
    """Precision-recall curve of one class at IoU 0.5.

    Args:
        point: precision and recall at the score threshold, shown as a dot; None if undefined.
    """
    with rc_context(_STYLE):
        axes = _unit_axes("recall", "precision")
        axes.fill_between(curve["recall"], curve["precision"], color=BLUE, alpha=0.12, linewidth=0)
        axes.plot(curve["recall"], curve["precision"], color=BLUE, linewidth=1.8)
        if point is not None and "precision" in point and "recall" in point:
            axes.plot(point["recall"], point["precision"], "o", color=ORANGE, markersize=6, clip_on=False)
        return _svg(axes)


def reliability_chart(bins: Sequence[Mapping[str, Any]]) -> str:
    """Reliability diagram: precision over mean score of each bin; larger dots have more detections."""
    filled = [b for b in bins if b["count"]]
    max_count = max((b["count"] for b in filled), default=1)
    with rc_context(_STYLE):
        axes = _unit_axes("mean score", "precision")
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        xs, ys = [b["mean_score"] for b in filled], [b["precision"] for b in filled]
        axes.plot(xs, ys, color=BLUE, linewidth=1.2)
        sizes = [12 + 110 * b["count"] / max_count for b in filled]
        axes.scatter(xs, ys, s=sizes, color=BLUE, clip_on=False, zorder=3)
        return _svg(axes)


def forest_chart(rows: Sequence[tuple[str, float, tuple[float, float]]], x_label: str) -> str:
    """Forest plot of differences with their intervals.

    Blue: the whole interval is positive; orange: it is negative; grey: it contains zero.

    Args:
        rows: name, difference, ends of the interval.
    """
    with rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 0.8 + 0.32 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        for y, (_, delta, (low, high)) in enumerate(rows):
            colour = BLUE if low > 0 else ORANGE if high < 0 else GREY
            axes.plot([low, high], [y, y], color=colour, linewidth=2.4, solid_capstyle="butt")
            axes.plot([delta], [y], "o", color=colour, markersize=6)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_yticks(range(len(rows)), [_label(name) for name, *_ in rows])
        axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel=x_label)
        axes.grid(visible=True, axis="x", color="#e3e8eb", linewidth=0.8)
        axes.set_axisbelow(True)
        return _svg(axes)


def heat_chart(
    tables: Mapping[str, Sequence[Sequence[float]]], rows: Sequence[str], columns: Sequence[str]
) -> str:
    """Heat maps side by side with a common colour scale, with values for up to ``MAX_VALUE_COLUMNS`` columns.

    Args:
        tables: by title, all of the same shape.
    """
    highest = max((value for table in tables.values() for row in table for value in row), default=0.0)
    side = max(0.46 * len(columns), 2.2)
    with rc_context(_STYLE):
        figure = Figure(figsize=(1.6 + side * len(tables), 1.3 + 0.36 * len(rows)), layout="constrained")
        for i, axes in enumerate(np.atleast_1d(figure.subplots(1, len(tables), sharey=True))):
            title, table = list(tables.items())[i]
            axes.imshow(table, cmap="Blues", vmin=0.0, vmax=highest or 1.0, aspect="auto")
            axes.set_title(_label(title), fontsize=9)
            labels = list(map(_label, columns))
            axes.set_xticks(range(len(columns)), labels, rotation=60, ha="right", rotation_mode="anchor")
            axes.set_yticks(range(len(rows)), list(map(_label, rows)))
            for y, row in enumerate(table if len(columns) <= MAX_VALUE_COLUMNS else ()):
                for x, value in enumerate(row):
                    dark = value > 0.6 * highest
                    axes.text(
                        x, y, f"{value:.2f}", ha="center", va="center", fontsize=7, color="w" if dark else INK
                    )
        return _svg(axes)


def _label(name: str) -> str:
    """A name on one line, shortened so that it leaves room for the chart; tables have it in full."""
    line = on_one_line(name)
    return line if len(line) <= MAX_LABEL else f"{line[: MAX_LABEL - 3]}..."


def _unit_axes(x_label: str, y_label: str) -> Axes:
    """Axes with both ranges from 0 to 1."""
    axes = Figure(figsize=(2.9, 2.5), layout="constrained").add_subplot()
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=x_label, ylabel=y_label)
    axes.set_xticks([0, 0.5, 1])
    axes.set_yticks([0, 0.5, 1])
    axes.grid(visible=True, color="#e3e8eb", linewidth=0.8)
    axes.set_axisbelow(True)
    return axes


def _svg(axes: Axes) -> str:
    text = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with warnings.catch_warnings():
        # Only the layout uses matplotlib's font. The browser draws the text with a font that has the glyphs.
        warnings.filterwarnings("ignore", r"Glyph .* missing from font", UserWarning)
        axes.get_figure().savefig(text, format="svg", transparent=True, metadata=no_metadata)  # type: ignore[union-attr]
    return re.sub(
        r"^.*?(?=<svg )", "", text.getvalue(), flags=re.DOTALL
    )  # drop the prologue with its DTD URL
