"""COCO average precision for weighted images, used by the bootstrap and the error analysis.

Every reported mAP comes from pycocotools. This implementation computes what pycocotools cannot do, or not
fast enough: thousands of resamples of the images, and detections with one kind of error repaired. A test
compares it with pycocotools.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

RECALLS = np.linspace(0.0, 1.0, 101)
"""COCO's recall levels."""


def average_precision(
    correct: Bool[np.ndarray, "t n"], boxes: float, weight: Float[np.ndarray, " n"] | None = None
) -> Float[np.ndarray, " t"]:
    """Average precision of one class: the interpolated precision, averaged over 101 recall levels.

    The interpolated precision at a recall is the highest precision at this recall or a higher one.

    Args:
        correct: whether each of n detections is a true positive at each of t IoU thresholds; detections are
            sorted by descending score.
        boxes: number of ground-truth boxes.
        weight: how often each detection counts; default: once.

    Returns:
        AP at each IoU threshold, 0 to 1; NaN without ground-truth boxes.
    """
    if boxes <= 0:
        return np.full(len(correct), np.nan)
    weight = np.ones(correct.shape[1]) if weight is None else weight
    true_positives = np.cumsum(correct * weight, axis=1)
    precision = true_positives / np.maximum(np.cumsum(weight), 1.0)
    interpolated = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    padded = np.hstack([interpolated, np.zeros((len(correct), 1))])  # precision 0 at recalls never reached
    recall = true_positives / boxes
    return np.array(
        [row[np.searchsorted(reached, RECALLS)].mean() for row, reached in zip(padded, recall, strict=True)]
    )
