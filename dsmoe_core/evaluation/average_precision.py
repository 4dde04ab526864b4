"""Average precision as COCO reckons it, for images that count several times or not at all.

pycocotools remains the source of every reported mAP. This is for what it cannot do at all or not in time: a
thousand resamples of the images, and detections that were repaired. A test holds it to pycocotools.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

RECALLS = np.linspace(0.0, 1.0, 101)


def average_precision(
    right: Bool[np.ndarray, "t n"], boxes: float, weight: Float[np.ndarray, " n"] | None = None
) -> Float[np.ndarray, " t"]:
    """Mean over 101 recalls of the highest precision at this recall or a higher one.

    Args:
        right: whether each detection is right at each of t IoU thresholds; highest score first.
        boxes: how many true boxes there are; without any there is no figure, which is NaN.
        weight: how often each detection counts; once, where it is left out.
    """
    if boxes <= 0:
        return np.full(len(right), np.nan)
    weight = np.ones(right.shape[1]) if weight is None else weight
    hits = np.cumsum(right * weight, axis=1)
    precision = hits / np.maximum(np.cumsum(weight), 1.0)
    highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    beyond = np.hstack([highest, np.zeros((len(right), 1))])  # a recall that is never reached has precision 0
    recall = hits / boxes
    return np.array(
        [row[np.searchsorted(reached, RECALLS)].mean() for row, reached in zip(beyond, recall, strict=True)]
    )
