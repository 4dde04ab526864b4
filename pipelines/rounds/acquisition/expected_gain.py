"""Acquisition function ``expected_gain``: expected corrections per second of annotator time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from dsmoe_core.schema import Detection, Outcome, Prediction
from pipelines.rounds.acquisition.function import AcquisitionFunction, Candidates, Values
from pipelines.rounds.acquisition.greedy import Rows, Shortlist
from pipelines.rounds.acquisition.pool_arrays import PoolArrays
from pipelines.workspace.annotation_time import IMAGE

QUOTA_SHARE = 0.5
"""Largest part of the budget that the per-class minimum may determine."""


def expected_gain_scores(candidates: Candidates) -> dict[str, float]:
    """Expected corrections per second of annotator time, times diversity and class balance.

    An image's gain is ``sum_c w_c g_c / t``:

    - g_c: expected corrections of class c. With p, the calibrated probability of a detection, one that is
      shown as pre-annotation is corrected (relabelled or deleted) with probability 1 - p, and one that is too
      uncertain to be shown has to be drawn with probability p.
    - t: expected seconds: looking at the image, and accepting, relabelling, deleting or drawing its boxes.
    - w_c = sqrt((1 + n_min) / (1 + n_c)), n_c: boxes of the class, labelled or expected in the selection.

    The gain is multiplied by one minus the highest cosine with a labelled or selected image (embeddings
    without their mean). Until the selected images have ``class_minimum`` expected boxes of each class, the
    next image is one with the class that lacks most, for at most half of the budget.

    Ours. Cost-sensitive selection is described in Settles, "Active learning literature survey", 2009,
    section 7. Objects without any detection are not counted.
    """
    pool = PoolArrays(candidates)
    seconds = candidates.seconds()
    counts = candidates.class_counts()

    def work(prediction: Prediction) -> tuple[Mapping[str, float], ...]:
        return expected_work(prediction, candidates, seconds)

    classes, (corrections, boxes, time) = pool.per_class(work, counts, kinds=3)
    duration = (time.sum(1) + seconds[IMAGE]).astype(np.float64)
    selection = _Selection(corrections, boxes, duration, _counts(classes, counts), candidates)
    everything = np.arange(len(pool))
    shortlist = Shortlist(
        selection.gain(everything), pool.vectors(), candidates.labelled_embeddings, candidates.budget
    )
    return pool.scores(
        shortlist.scores(candidates.budget, selection.gain, selection.add, selection.lacking_class)
    )


def expected_work(
    prediction: Prediction, candidates: Candidates, seconds: Mapping[str, float]
) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Expected corrections, true boxes and seconds of an image by class; looking at the image not counted."""
    corrections: dict[str, float] = {}
    boxes: dict[str, float] = {}
    time: dict[str, float] = {}
    for d in prediction.detections:
        if not d.is_top_class:
            continue
        p = candidates.probability(d)
        shown = d.score >= candidates.shown_score(d.label)
        corrections[d.label] = corrections.get(d.label, 0.0) + (1 - p if shown else p)
        boxes[d.label] = boxes.get(d.label, 0.0) + p
        time[d.label] = time.get(d.label, 0.0) + _seconds(d, p, shown, seconds)
    return corrections, boxes, time


def _seconds(detection: Detection, p: float, shown: bool, seconds: Mapping[str, float]) -> float:
    """Expected annotator seconds of one detection."""
    if not shown:
        return p * seconds[Outcome.ADDED]
    second = detection.second_best
    other = min(second[1], 1 - p) if second else 0.0  # the box is right and its class is wrong
    return (
        p * seconds[Outcome.ACCEPTED]
        + other * seconds[Outcome.RELABELLED]
        + (1 - p - other) * seconds[Outcome.DELETED]
    )


def _counts(classes: list[str], counts: Mapping[str, int]) -> Values:
    return np.array([counts.get(name, 0) for name in classes], dtype=np.float64)


class _Selection:
    """Gains that fall as classes are selected.

    Args:
        corrections, boxes: expected number by image and class, n x c.
        duration: seconds per image.
        counts: labelled boxes per class.
    """

    def __init__(
        self,
        corrections: NDArray[np.float32],
        boxes: NDArray[np.float32],
        duration: Values,
        counts: Values,
        candidates: Candidates,
    ) -> None:
        self._corrections, self._boxes, self._duration = corrections, boxes, duration
        self._counts = counts.copy()
        self._fewest = float(counts.min()) if counts.size else 0.0
        self._missing = np.full(counts.shape, candidates.class_minimum)
        self._quota = int(QUOTA_SHARE * candidates.budget)

    def gain(self, rows: Rows) -> Values:
        """Expected corrections per second of these rows, weighted by class."""
        weights = np.minimum(np.sqrt((1 + self._fewest) / (1 + self._counts)), 1.0).astype(np.float32)
        gain: Values = (self._corrections[rows] @ weights).astype(np.float64) / self._duration[rows]
        return gain

    def add(self, row: int) -> None:
        """Count the expected boxes of a selected row."""
        self._counts += self._boxes[row]
        self._missing -= self._boxes[row]
        self._quota -= 1

    def lacking_class(self, rows: Rows) -> NDArray[np.bool_] | None:
        """The rows with boxes of the class that lacks most; None if no class lacks any that the pool has."""
        if self._quota <= 0 or not len(rows):
            return None
        for column in np.argsort(-self._missing, kind="stable"):
            if self._missing[column] <= 0:
                return None
            having = self._boxes[rows, column] >= 0.5
            if having.any():
                return np.asarray(having)
        return None


EXPECTED_GAIN = AcquisitionFunction(
    "images with many expected corrections per second of annotator time", expected_gain_scores
)
