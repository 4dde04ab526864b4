"""Renders an image with boxes: annotations in solid lines, detections in dashed lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dsmoe_core.schema import Annotation, Detection
from pipelines.datasets import drawing
from pipelines.datasets.drawing import BoxOverlay

UNKNOWN_CLASS = "#7a7a7a"
"""Colour of a class that is not in the class book any more."""


def render_boxes(
    path: Path,
    truth: Sequence[Annotation],
    detections: Sequence[Detection],
    colours: Mapping[str, str],
    width: int = 480,
) -> bytes:
    """JPEG of an image with all boxes.

    Args:
        detections: highest score first; it is drawn on top of the others, and annotations on top of all.
        colours: ``#rrggbb`` per class.
        width: of the JPEG, pixels.

    Raises:
        OSError: the image cannot be read.
    """
    marks = [
        BoxOverlay(d.box, f"{d.label} {d.score:.0%}", colours.get(d.label, UNKNOWN_CLASS), dashed=True)
        for d in reversed(detections)
    ]
    marks += [BoxOverlay(a.box, a.label, colours.get(a.label, UNKNOWN_CLASS), dashed=False) for a in truth]
    return drawing.draw_boxes(path, marks, width)
