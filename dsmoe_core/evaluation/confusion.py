"""Confusion matrix of a detector: ground-truth classes in rows, detected classes in columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int

from dsmoe_core.evaluation.matching import IOU_THRESHOLD, UNMATCHED, ImageMatches, greedy_match

BACKGROUND_ROW = "background"
"""Name of the last row: detections without a ground-truth box."""
MISSED_COLUMN = "missed"
"""Name of the last column: ground-truth boxes without a detection."""


def confusion(
    matched: Iterable[ImageMatches], classes: Sequence[str], threshold: float
) -> Int[np.ndarray, "n n"]:
    """Count ground-truth boxes by detected class; n is the number of classes plus one.

    Detections below the score threshold are ignored. The others are matched at IoU 0.5 in two passes, each
    greedy by score: first within their class, so that the diagonal holds the true positives of precision and
    recall, then the rest across classes. A row sums to the ground-truth boxes of a class, a column to its
    detections.
    """
    index = {name: i for i, name in enumerate(classes)}
    none = len(classes)
    table = np.zeros((none + 1, none + 1), dtype=np.int64)
    for image in matched:
        counted = image.scores >= threshold
        left_over = counted & ~image.correct
        free = image.truth_scores < threshold
        truth_index = image.truth_index.copy()
        truth_index[left_over] = greedy_match(np.where(free, image.iou[left_over], 0.0), IOU_THRESHOLD)
        free[truth_index[left_over & (truth_index != UNMATCHED)]] = False
        for i in np.flatnonzero(counted):
            row = none if truth_index[i] == UNMATCHED else index[image.truth[truth_index[i]].label]
            table[row, index[image.detections[i].label]] += 1
        for i in np.flatnonzero(free):
            table[index[image.truth[i].label], none] += 1
    return table
