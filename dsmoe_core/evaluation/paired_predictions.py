"""Paired comparison of the predictions of two models on the same annotated images, with bootstrap intervals.

Images, or groups of images that depend on each other, are resampled; both models are evaluated on the same
resamples (see ``dsmoe_core.evaluation.bootstrap``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from math import ceil, log2
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from dsmoe_core.evaluation.bootstrap import (
    Interval,
    expanded_interval,
    mean_over_classes,
    resample_counts,
    resampled_map,
    resampled_precision_recall,
)
from dsmoe_core.evaluation.coco_metrics import CocoTables, coco_tables
from dsmoe_core.evaluation.matching import ImageMatches, match_images
from dsmoe_core.evaluation.operating_point import best_threshold
from dsmoe_core.progress import CountCallback
from dsmoe_core.schema import LabelledImage, Prediction

METRICS = ("map50", "map", "precision", "recall", "f1")
"""Names of the metrics that are compared in total; the first two for each class as well."""


class Difference(NamedTuple):
    """One metric of two models, 0 to 1.

    Attributes:
        delta: first minus second.
        interval: of ``delta``, at the confidence of the comparison.
    """

    first: float
    second: float
    delta: float
    interval: Interval


def min_units(confidence: float) -> int:
    """Fewest units that can show a difference: a sign test of fewer is not significant, even if all agree.

    With n units the one-sided p value of the sign test is at least 2^-n.

    Args:
        confidence: 0 to 1, of the two-sided interval.
    """
    return ceil(log2(2 / (1 - confidence)))


class PairedPredictions:
    """The predictions of two models on the same annotated images.

    The matches are kept as arrays, so that no prediction stays in memory after it was read.

    Args:
        first, second: predictions by image key.
        groups: of each image, such as its board design; None: every image is a group of its own.
        confidence: 0 to 1, of the two-sided intervals.
        progress: called with (resamples done, resamples in total), for each model.
    """

    def __init__(
        self,
        first: Mapping[str, Prediction],
        second: Mapping[str, Prediction],
        truth: Sequence[LabelledImage],
        classes: Sequence[str],
        *,
        groups: Sequence[str] | None = None,
        confidence: float = 0.95,
        resamples: int = 2000,
        seed: int = 0,
        progress: CountCallback | None = None,
    ) -> None:
        self.first, self.second = first, second
        self.truth, self.classes = truth, tuple(classes)
        self.confidence = confidence
        self._groups, self._resamples, self._seed = groups, resamples, seed
        self._progress = progress

    @cached_property
    def units(self) -> int:
        """Number of resampled units, images or groups, that have a ground-truth box."""
        return self._units_of(set(self.classes))

    def _units_of(self, labels: Collection[str]) -> int:
        """Number of units that have a box of one of these classes."""
        names = self._groups or [labelled.image.key for labelled in self.truth]
        pairs = zip(names, self.truth, strict=True)
        return len({name for name, p in pairs if any(a.label in labels for a in p.annotations)})

    @cached_property
    def boxes(self) -> dict[str, int]:
        """Number of ground-truth boxes of each class."""
        count = Counter(a.label for labelled in self.truth for a in labelled.annotations)
        return {name: count[name] for name in self.classes}

    @cached_property
    def tables(self) -> tuple[CocoTables, CocoTables]:
        """The matches of each model."""
        first, second = (coco_tables(p, self.truth, self.classes) for p in (self.first, self.second))
        return first, second

    def matched(self, predictions: Mapping[str, Prediction]) -> list[ImageMatches]:
        """Detections of one of the models with their boxes, matched; they are not kept."""
        return match_images(predictions, self.truth)

    @property
    def enough_units(self) -> bool:
        """Whether there are enough images or groups for an interval to show anything."""
        return self.units >= min_units(self.confidence)

    def mean_difference(self, metric: str = "map") -> Difference | None:
        """Difference of ``map50`` or ``map``, mean over the classes; None if it is undefined."""
        column = METRICS.index(metric)
        means = [tables.mean() for tables in self.tables]
        resampled = [mean_over_classes(values)[:, column] for values in self._resampled]
        return self._difference(means[0], means[1], resampled, column, self.units)

    def class_difference(self, name: str, metric: str = "map") -> Difference | None:
        """Difference of ``map50`` or ``map`` of one class; None if it has no ground-truth box."""
        column, index = METRICS.index(metric), self.classes.index(name)
        means = [tables.mean(label=name) for tables in self.tables]
        resampled = [values[:, index, column] for values in self._resampled]
        return self._difference(means[0], means[1], resampled, column, self._units_of({name}))

    def operating_point_differences(self) -> dict[str, Difference]:
        """Differences of precision, recall and F1, each model at its own score threshold of the best F1."""
        points, resampled = [], []
        once = np.ones((1, len(self.truth)), dtype=np.int64)
        for predictions in (self.first, self.second):
            matched = self.matched(predictions)
            threshold = best_threshold(matched)
            threshold = 2.0 if threshold is None else threshold
            points.append(np.nan_to_num(resampled_precision_recall(matched, threshold, once)[0]))
            resampled.append(resampled_precision_recall(matched, threshold, self._counts))
        differences = {}
        for i, name in enumerate(METRICS[2:]):
            ends = self._interval(resampled[0][:, i] - resampled[1][:, i], self.units)
            if ends is not None:
                values = float(points[0][i]), float(points[1][i])
                differences[name] = Difference(*values, values[0] - values[1], ends)
        return differences

    @cached_property
    def _counts(self) -> Int[np.ndarray, "b p"]:
        return resample_counts(len(self.truth), self._resamples, self._seed, self._groups)

    @cached_property
    def _resampled(self) -> tuple[Float[np.ndarray, "b c 2"], Float[np.ndarray, "b c 2"]]:
        first, second = (resampled_map(tables, self._counts, self._progress) for tables in self.tables)
        return first, second

    def _difference(
        self,
        first: tuple[float, float] | None,
        second: tuple[float, float] | None,
        resampled: Sequence[Float[np.ndarray, " b"]],
        column: int,
        units: int,
    ) -> Difference | None:
        ends = self._interval(resampled[0] - resampled[1], units)
        if first is None or second is None or ends is None:
            return None
        return Difference(first[column], second[column], first[column] - second[column], ends)

    def _interval(self, values: Float[np.ndarray, " b"], units: int) -> Interval | None:
        return expanded_interval(values, max(2, units), self.confidence)
