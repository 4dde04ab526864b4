"""Plot of the learning curves of a simulation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dsmoe_core.errors import PrerequisiteError

PANELS = (("boxes", "labelled boxes"), ("minutes", "annotator minutes"))
METRICS = (("map50", "mAP@.5"), ("map", "mAP@.5:.95"))


def require_matplotlib() -> None:
    """Check before the work that the plot can be drawn.

    Raises:
        PrerequisiteError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise PrerequisiteError(
            "matplotlib is not installed; it draws the charts",
            "Install it with `pip install 'dsmoe[report]'`.",
        ) from error


def draw_curves(measured: Mapping[str, Any], path: Path) -> None:
    """Write the curves as an image: both metrics over boxes and over minutes, with intervals.

    Args:
        measured: see ``summary.summarise``.
        path: its ending determines the format.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    axes = figure.subplots(2, 2, sharey="row", sharex="col")
    strategies = list(dict.fromkeys(row["strategy"] for row in measured["curves"]))
    for line, (metric, metric_label) in zip(axes, METRICS, strict=True):
        for panel, (effort, label) in zip(line, PANELS, strict=True):
            for name in strategies:
                _draw(panel, [r for r in measured["curves"] if r["strategy"] == name], effort, metric, name)
            panel.axhline(measured["full"][metric]["mean"], color="grey", linestyle="--", linewidth=1)
            panel.set_xlabel(label)
        line[0].set_ylabel(metric_label)
    axes[0][0].legend(fontsize=8)
    figure.suptitle(f"{measured['data']}: dashed, trained on all labels")
    figure.savefig(path)


def _draw(panel: Any, rows: Sequence[Mapping[str, Any]], effort: str, metric: str, name: str) -> None:
    x = [row[effort]["mean"] for row in rows]
    (drawn,) = panel.plot(x, [row[metric]["mean"] for row in rows], marker="o", markersize=3, label=name)
    if all(row[metric]["ci95"] for row in rows):
        low, high = zip(*(row[metric]["ci95"] for row in rows), strict=True)
        panel.fill_between(x, low, high, color=drawn.get_color(), alpha=0.12, linewidth=0)
