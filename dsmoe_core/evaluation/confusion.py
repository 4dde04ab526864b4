"""What is taken for what: a table of true classes (rows) and found ones (columns)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int

from dsmoe_core.evaluation.matching import IOU_THRESHOLD, UNMATCHED, ImageMatches, greedy_match

BACKGROUND = "background"
"""Name of the last row: something was found where nothing is."""
MISSED = "missed"
"""Name of the last column: nothing was found where something is."""


def confusion(
    matched: Iterable[ImageMatches], classes: Sequence[str], threshold: float
) -> Int[np.ndarray, "n n"]:
    """Count true boxes by what they were found to be, n being the classes and one more.

    Detections below the threshold do not count. The others are matched twice, greedily by score, at IoU 0.5:
    first within their class, so that the diagonal holds what precision and recall call right; then, what is
    left over, across classes. So a row sums up to the true boxes of a class and a column to its detections.
    """
    place = {name: i for i, name in enumerate(classes)}
    none = len(classes)
    table = np.zeros((none + 1, none + 1), dtype=np.int64)
    for image in matched:
        shown = image.scores >= threshold
        left_over = shown & ~image.right
        free = image.best_score < threshold
        truth_index = image.truth_index.copy()
        truth_index[left_over] = greedy_match(np.where(free, image.overlap[left_over], 0.0), IOU_THRESHOLD)
        free[truth_index[left_over & (truth_index != UNMATCHED)]] = False
        for i in np.flatnonzero(shown):
            row = none if truth_index[i] == UNMATCHED else place[image.truth[truth_index[i]].label]
            table[row, place[image.detections[i].label]] += 1
        for i in np.flatnonzero(free):
            table[place[image.truth[i].label], none] += 1
    return table
