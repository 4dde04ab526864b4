"""What the detector takes each true box for: the surest detection on it, of whatever class, however faint."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from dsmoe_core.evaluation.matching import IOU_THRESHOLD, pairwise_iou
from dsmoe_core.schema import Annotation, Detection


def best_matches(boxes: Sequence[Annotation], detections: Sequence[Detection]) -> list[Detection | None]:
    """Of each box the detection of the highest score that overlaps it by half; None where there is none.

    No threshold of scores: one would hide the confusions of a detector that is less sure where it is wrong.
    """
    return best_matches_from_iou(
        detections, pairwise_iou([f.box for f in detections], [a.box for a in boxes])
    )


def best_matches_from_iou(
    detections: Sequence[Detection], overlap: Float[np.ndarray, "f t"]
) -> list[Detection | None]:
    """The same where the IoU of every detection with every box is known."""
    on_them = [[detections[row] for row in np.flatnonzero(column >= IOU_THRESHOLD)] for column in overlap.T]
    return [max(found, key=lambda f: f.score, default=None) for found in on_them]
