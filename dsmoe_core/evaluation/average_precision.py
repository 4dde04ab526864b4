"""COCO average precision for weighted images, used by the bootstrap and the error analysis.

Every reported mAP comes from pycocotools. This implementation computes what pycocotools cannot do, or not
fast enough: thousands of resamples of the images, and detections with one kind of error repaired. A test
compares it with pycocotools.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

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


def average_precision_of_resamples(
    correct: Bool[np.ndarray, "t n"], boxes: Int[np.ndarray, " b"], weight: Int[np.ndarray, "b n"]
) -> Float[np.ndarray, "b t"]:
    """:func:`average_precision` in each of b resamples, computed together.

    Args:
        boxes: number of ground-truth boxes in each resample.
        weight: how often each detection counts in each resample.
    """
    result = np.full((len(boxes), len(correct)), np.nan)
    step = max(1, _MAX_CELLS // max(1, correct.shape[1] + len(RECALLS)))
    for start in range(0, len(boxes), step):
        rows = slice(start, start + step)
        with_boxes = boxes[rows] > 0
        if with_boxes.any():
            values = _resampled(correct, boxes[rows][with_boxes], weight[rows][with_boxes])
            result[rows][with_boxes] = values
    return result


_MAX_CELLS = 1 << 21
"""Largest size of an intermediate array."""


def _resampled(
    correct: Bool[np.ndarray, "t n"], boxes: Int[np.ndarray, " b"], weight: Int[np.ndarray, "b n"]
) -> Float[np.ndarray, "b t"]:
    """Average precision of resamples that have boxes.

    The precision is computed at the true positives alone, as it falls between them. Recalls are compared as
    counts, which are exact.
    """
    detections = np.maximum(np.cumsum(weight, axis=1), 1)
    needed = np.empty((len(boxes), len(RECALLS)), dtype=np.int64)
    for count in np.unique(boxes):
        needed[boxes == count] = np.searchsorted(np.arange(count + 1) / count, RECALLS)
    columns = [np.flatnonzero(row) for row in correct]
    return np.stack([_at_true_positives(weight[:, at], detections[:, at], needed) for at in columns], axis=1)


def _at_true_positives(
    weight: Int[np.ndarray, "b n"], detections: Int[np.ndarray, "b n"], needed: Int[np.ndarray, "b r"]
) -> Float[np.ndarray, " b"]:
    """Mean interpolated precision at one IoU threshold.

    Args:
        weight: of the n true positives, by descending score.
        detections: number of detections up to each true positive.
        needed: number of true positives that each of r recalls needs.
    """
    b, n = weight.shape
    true_positives = np.cumsum(weight, axis=1)
    interpolated = np.maximum.accumulate((true_positives / detections)[:, ::-1], axis=1)[:, ::-1]
    padded = np.concatenate([interpolated, np.zeros((b, 1))], axis=1)  # precision 0 at recalls never reached
    row = np.arange(b)[:, None]
    apart = int(max(needed.max(initial=0), true_positives.max(initial=0))) + 1  # rows do not overlap
    ascending = (true_positives + row * apart).ravel()
    position = np.clip(np.searchsorted(ascending, needed + row * apart) - row * n, 0, n)
    mean: Float[np.ndarray, " b"] = np.take_along_axis(padded, position, axis=1).mean(axis=1)
    return mean
