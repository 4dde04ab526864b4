"""The highest-scoring detection on each ground-truth box, whatever its class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from dsmoe_core.evaluation.matching import IOU_THRESHOLD, pairwise_iou
from dsmoe_core.schema import Annotation, Detection


def best_matches(boxes: Sequence[Annotation], detections: Sequence[Detection]) -> list[Detection | None]:
    """For each ground-truth box, the detection of the highest score with IoU >= 0.5; None if there is none.

    No score threshold is applied: a threshold would hide confusions of a detector that gives wrong classes
    lower scores.
    """
    iou = pairwise_iou([f.box for f in detections], [a.box for a in boxes])
    return best_matches_from_iou(detections, iou)


def best_matches_from_iou(
    detections: Sequence[Detection], iou: Float[np.ndarray, "f t"]
) -> list[Detection | None]:
    """Same as :func:`best_matches` for a precomputed IoU of each of f detections with each of t boxes."""
    candidates = [[detections[row] for row in np.flatnonzero(column >= IOU_THRESHOLD)] for column in iou.T]
    return [max(on_box, key=lambda f: f.score, default=None) for on_box in candidates]
