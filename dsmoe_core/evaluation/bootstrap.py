"""Bootstrap over images: confidence intervals of metrics, and paired comparison of two models.

Images are resampled with replacement, as many as there are, and all metrics are recomputed for each resample.
Two models are compared on the same resamples (paired), which removes the variance of image difficulty that
both share. Percentile intervals, after Efron and Tibshirani, "An Introduction to the Bootstrap", 1993.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import ndtr, stdtrit

from dsmoe_core.evaluation.average_precision import average_precision_of_resamples
from dsmoe_core.evaluation.coco_metrics import CocoTables
from dsmoe_core.evaluation.matching import ImageMatches
from dsmoe_core.progress import CountCallback

_RESAMPLES_AT_A_TIME = 50
PERCENTILES = (2.5, 97.5)
"""Ends of a 95 % interval."""

Interval = tuple[float, float]


class Comparison(NamedTuple):
    """Difference of one metric between two models.

    Attributes:
        delta: first model minus second model, on the original images.
        ci95: 95 % interval of the difference.
        p: two-sided p value: twice the share of resamples whose difference has the opposite sign.
    """

    delta: float
    ci95: Interval
    p: float


def resample_counts(
    images: int, resamples: int, seed: int, groups: Sequence[object] | None = None
) -> Int[np.ndarray, "b p"]:
    """How often each of p images occurs in each of b resamples.

    Args:
        groups: of each image, such as its board design. Images of a group depend on each other, so whole
            groups are resampled. None: every image is a group of its own.
    """
    rng = np.random.default_rng(seed)
    if groups is None:
        return rng.multinomial(images, np.full(images, 1 / images), size=resamples)
    names = {group: row for row, group in enumerate(dict.fromkeys(groups))}
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    return counts[:, [names[group] for group in groups]]


def resampled_map(
    tables: CocoTables, counts: Int[np.ndarray, "b p"], progress: CountCallback | None = None
) -> Float[np.ndarray, "b c 2"]:
    """mAP@.5 and mAP@.5:.95 of each of c classes in each of b resamples.

    NaN where a class has no ground-truth box in a resample.

    Args:
        counts: see :func:`resample_counts`.
        progress: called with (resamples done, resamples in total).
    """
    values = np.full((len(counts), len(tables.classes), 2), np.nan)
    for start in range(0, len(counts), _RESAMPLES_AT_A_TIME):
        rows = slice(start, start + _RESAMPLES_AT_A_TIME)
        for c, matches in enumerate(tables.matches):
            boxes, weight = counts[rows] @ matches.boxes, counts[rows][:, matches.image]
            precisions = average_precision_of_resamples(matches.correct, boxes, weight)
            values[rows, c] = np.stack([precisions[:, 0], precisions.mean(axis=1)], axis=1)
        if progress is not None:
            progress(min(rows.stop, len(counts)), len(counts))
    return values


def mean_over_classes(resampled: Float[np.ndarray, "b c k"]) -> Float[np.ndarray, "b k"]:
    """Mean over the classes that have a value; NaN where none has."""
    known = ~np.isnan(resampled)
    total = np.where(known, resampled, 0.0).sum(axis=1)
    count = known.sum(axis=1)
    mean: Float[np.ndarray, "b k"] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return mean


def resampled_precision_recall(
    matched: Sequence[ImageMatches], threshold: float, counts: Int[np.ndarray, "b p"]
) -> Float[np.ndarray, "b 3"]:
    """Precision, recall and F1 over all boxes in each resample at a score threshold; NaN where undefined."""
    per_image = np.array(
        [
            [
                (p.truth_scores >= threshold).sum(),
                ((p.scores >= threshold) & ~p.correct).sum(),
                (p.truth_scores < threshold).sum(),
            ]
            for p in matched
        ]
    )
    tp, fp, fn = (counts @ per_image).T.astype(np.float64)
    numerator = np.stack([tp, tp, 2 * tp])
    denominator = np.stack([tp + fp, tp + fn, 2 * tp + fp + fn])
    return np.where(denominator > 0, numerator / np.maximum(denominator, 1), np.nan).T


def interval(values: Float[np.ndarray, " b"]) -> Interval | None:
    """95 % interval of a resampled metric; None if it is undefined in all resamples."""
    known = values[~np.isnan(values)]
    if not known.size:
        return None
    low, high = np.percentile(known, PERCENTILES)
    return float(low), float(high)


def expanded_interval(
    values: Float[np.ndarray, " b"], units: int, confidence: float = 0.95
) -> Interval | None:
    """Expanded percentile interval of a resampled metric; None if it is undefined in all resamples.

    A percentile interval is too narrow for few units. Its percentiles are moved outwards as much as Student's
    interval of a mean of ``units`` values is wider than the normal one. Hesterberg, "What Teachers Should
    Know About the Bootstrap", 2015, section 3.3.

    Args:
        units: number of images, or of groups of images, that were resampled; at least 2.
        confidence: 0 to 1, of the two-sided interval.
    """
    known = values[~np.isnan(values)]
    if not known.size:
        return None
    tail = ndtr(np.sqrt(units / (units - 1)) * stdtrit(units - 1, (1 - confidence) / 2))
    low, high = np.quantile(known, (tail, 1 - tail))
    return float(low), float(high)


def compare(
    delta: float,
    first: Float[np.ndarray, " b"],
    second: Float[np.ndarray, " b"],
    *,
    units: int | None = None,
) -> Comparison | None:
    """Compare one metric of two models; None if it is undefined in all resamples.

    Args:
        delta: the difference on the original images.
        first, second: the metric of each model in the same resamples.
        units: number of images or groups that were resampled, at least 2, for an expanded interval; None: a
            percentile interval.
    """
    difference = first - second
    ends = interval(difference) if units is None else expanded_interval(difference, units)
    if ends is None:
        return None
    known = difference[~np.isnan(difference)]
    smaller_tail = min((known <= 0).sum(), (known >= 0).sum())
    return Comparison(delta, ends, min(1.0, 2 * (float(smaller_tail) + 1) / (len(known) + 1)))
