"""How far figures would wander on other images of the same kind: the bootstrap over images.

Images are drawn with replacement, as many as there are, many times; each time all figures are reckoned
anew. Two models are compared on the same draws (paired), which takes out that some images are hard for
both (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993; percentile intervals).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from dsmoe_core.evaluation.average_precision import average_precision
from dsmoe_core.evaluation.coco_metrics import CocoTables
from dsmoe_core.evaluation.matching import ImageMatches
from dsmoe_core.progress import CountCallback

TAILS = (2.5, 97.5)
"""Percentiles that a 95 % interval ends at."""

Interval = tuple[float, float]


class Comparison(NamedTuple):
    """One figure of two models.

    Attributes:
        delta: the first one's less the second one's, on the images as they are.
        p: two-sided; how often a draw speaks against the sign of the difference, twice.
    """

    delta: float
    ci95: Interval
    p: float


def resample_counts(images: int, resamples: int, seed: int) -> Int[np.ndarray, "b p"]:
    """How often each image comes in each resample."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(images, np.full(images, 1 / images), size=resamples)


def resampled_map(
    tables: CocoTables, counts: Int[np.ndarray, "b p"], progress: CountCallback | None = None
) -> Float[np.ndarray, "b c 2"]:
    """mAP@.5 and mAP@.5:.95 of each class in each resample; NaN where it has no true box there.

    Args:
        progress: called with (resamples done, resamples in all).
    """
    answer = np.full((len(counts), len(tables.classes), 2), np.nan)
    for b in range(len(counts)):
        weight = counts[b].astype(np.float64)
        for c, matches in enumerate(tables.matches):
            each = average_precision(matches.right, float(weight @ matches.boxes), weight[matches.image])
            answer[b, c] = each[0], each.mean()
        if progress is not None:
            progress(b + 1, len(counts))
    return answer


def mean_over_classes(resampled: Float[np.ndarray, "b c k"]) -> Float[np.ndarray, "b k"]:
    """Over the classes that have a figure; NaN where none has."""
    known = ~np.isnan(resampled)
    total = np.where(known, resampled, 0.0).sum(axis=1)
    count = known.sum(axis=1)
    mean: Float[np.ndarray, "b k"] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return mean


def resampled_precision_recall(
    matched: Sequence[ImageMatches], threshold: float, counts: Int[np.ndarray, "b p"]
) -> Float[np.ndarray, "b 3"]:
    """Precision, recall and F1 over all boxes in each resample, at this score; NaN where undefined."""
    each = np.array(
        [
            [
                (p.best_score >= threshold).sum(),
                ((p.scores >= threshold) & ~p.right).sum(),
                (p.best_score < threshold).sum(),
            ]
            for p in matched
        ]
    )
    right, false, missed = (counts @ each).T.astype(np.float64)
    above = np.stack([right, right, 2 * right])
    below = np.stack([right + false, right + missed, 2 * right + false + missed])
    return np.where(below > 0, above / np.maximum(below, 1), np.nan).T


def interval(values: Float[np.ndarray, " b"]) -> Interval | None:
    """The middle 95 % of a resampled figure; None where no resample has it."""
    known = values[~np.isnan(values)]
    if not known.size:
        return None
    low, high = np.percentile(known, TAILS)
    return float(low), float(high)


def compare(delta: float, one: Float[np.ndarray, " b"], other: Float[np.ndarray, " b"]) -> Comparison | None:
    """Two models' resamples of one figure, from the same draws; None where no resample has it.

    Args:
        delta: the difference on the images as they are.
    """
    difference = one - other
    ends = interval(difference)
    if ends is None:
        return None
    known = difference[~np.isnan(difference)]
    against = min((known <= 0).sum(), (known >= 0).sum())
    return Comparison(delta, ends, min(1.0, 2 * (float(against) + 1) / (len(known) + 1)))
