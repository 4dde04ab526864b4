"""An image with boxes on it: people's in whole lines, the detector's in dashed ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dsmoe_core.schema import Annotation, Detection
from pipelines.datasets import drawing
from pipelines.datasets.drawing import BoxOverlay

UNKNOWN = "#7a7a7a"
"""For a class that the class book lacks by now."""


def drawn(
    path: Path,
    truth: Sequence[Annotation],
    detections: Sequence[Detection],
    colours: Mapping[str, str],
    width: int = 480,
) -> bytes:
    """A JPEG of this width with all boxes.

    Args:
        colours: ``#rrggbb`` per class.
        width: pixels.

    Raises:
        OSError: the image cannot be read.
    """

    def mark(one: Annotation | Detection, text: str, *, dashed: bool) -> BoxOverlay:
        return BoxOverlay(one.box, text, colours.get(one.label, UNKNOWN), dashed)

    # The most probable detection on top of the others, and people's boxes on top of all.
    marks = [mark(f, f"{f.label} {f.score:.0%}", dashed=True) for f in reversed(detections)]
    marks += [mark(a, a.label, dashed=False) for a in truth]
    return drawing.draw_boxes(path, marks, width)
