"""The charts of the report, as SVG texts that name no other file or host."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE, GREY, INK = "#0b6e99", "#b06a00", "#9aa7b0", "#17242d"
MAX_FIGURES = 12
"""In so many columns of a heat map there is room for figures."""
_STYLE: dict[Any, Any] = {
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": "sans-serif",
    "font.size": 9,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "dsmoe",  # the same figures give the same file
    "text.parse_math": False,  # a $ is a dollar
    "xtick.color": INK,
    "ytick.color": INK,
}


def curve_chart(curve: Mapping[str, Sequence[float]], point: Mapping[str, Any] | None) -> str:
    """Precision over recall of one class at IoU 0.5.

    Args:
        point: precision and recall at the threshold in use, marked by a dot; None: undefined.
    """
    with rc_context(_STYLE):
        axes = _square("recall", "precision")
        axes.fill_between(curve["recall"], curve["precision"], color=BLUE, alpha=0.12, linewidth=0)
        axes.plot(curve["recall"], curve["precision"], color=BLUE, linewidth=1.8)
        if point is not None and "precision" in point and "recall" in point:
            axes.plot(point["recall"], point["precision"], "o", color=ORANGE, markersize=6, clip_on=False)
        return _svg(axes)


def reliability_chart(bins: Sequence[Mapping[str, Any]]) -> str:
    """The share of right detections over their score; the size of a dot says how many there are."""
    known = [b for b in bins if b["count"]]
    most = max((b["count"] for b in known), default=1)
    with rc_context(_STYLE):
        axes = _square("mean score", "share that is right")
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        axes.plot([b["score"] for b in known], [b["right"] for b in known], color=BLUE, linewidth=1.2)
        sizes = [12 + 110 * b["count"] / most for b in known]
        xs, ys = [b["score"] for b in known], [b["right"] for b in known]
        axes.scatter(xs, ys, s=sizes, color=BLUE, clip_on=False, zorder=3)
        return _svg(axes)


def forest_chart(rows: Sequence[tuple[str, float, tuple[float, float]]], across: str) -> str:
    """Differences with their intervals, one below the other; blue where the whole interval is a gain, orange
    where it is a loss, grey where it holds zero.

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
        axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
        axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel=across)
        axes.grid(visible=True, axis="x", color="#e3e8eb", linewidth=0.8)
        axes.set_axisbelow(True)
        return _svg(axes)


def heat_chart(
    tables: Mapping[str, Sequence[Sequence[float]]], rows: Sequence[str], columns: Sequence[str]
) -> str:
    """Tables side by side on one scale of colours, with the figures in them while there is room.

    Args:
        tables: by their titles, all of one shape.
    """
    most = max((value for table in tables.values() for row in table for value in row), default=0.0)
    side = max(0.46 * len(columns), 2.2)
    with rc_context(_STYLE):
        figure = Figure(figsize=(1.6 + side * len(tables), 1.3 + 0.36 * len(rows)), layout="constrained")
        for place, axes in enumerate(np.atleast_1d(figure.subplots(1, len(tables), sharey=True))):
            title, table = list(tables.items())[place]
            axes.imshow(table, cmap="Blues", vmin=0.0, vmax=most or 1.0, aspect="auto")
            axes.set_title(title, fontsize=9)
            axes.set_xticks(range(len(columns)), columns, rotation=60, ha="right", rotation_mode="anchor")
            axes.set_yticks(range(len(rows)), rows)
            for y, row in enumerate(table if len(columns) <= MAX_FIGURES else ()):
                for x, value in enumerate(row):
                    dark = value > 0.6 * most
                    axes.text(
                        x, y, f"{value:.2f}", ha="center", va="center", fontsize=7, color="w" if dark else INK
                    )
        return _svg(axes)


def _square(across: str, up: str) -> Axes:
    """Axes from 0 to 1 both ways."""
    axes = Figure(figsize=(2.9, 2.5), layout="constrained").add_subplot()
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=across, ylabel=up)
    axes.set_xticks([0, 0.5, 1])
    axes.set_yticks([0, 0.5, 1])
    axes.grid(visible=True, color="#e3e8eb", linewidth=0.8)
    axes.set_axisbelow(True)
    return axes


def _svg(axes: Axes) -> str:
    text = io.StringIO()
    nobody = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    axes.get_figure().savefig(text, format="svg", transparent=True, metadata=nobody)  # type: ignore[union-attr]
    return re.sub(r"^.*?(?=<svg )", "", text.getvalue(), flags=re.DOTALL)  # no prologue, which names a DTD
