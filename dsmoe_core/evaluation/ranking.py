"""Quality of a ranking: AUROC and Spearman's rank correlation, with bootstrap intervals over images."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from dsmoe_core.evaluation.bootstrap import Interval, interval

Weights = Float[np.ndarray, " n"]
Measure = Callable[[Weights], float]
"""The quality of a ranking by the weights of its samples."""


class Ranking(NamedTuple):
    """Quality of a score and its gain over a baseline on the same resamples.

    Attributes:
        value, baseline: of both scores; None if it is not defined, such as without a positive sample.
        ci95, baseline_ci95, gain_ci95: 95 % intervals.
    """

    value: float | None
    ci95: Interval | None
    baseline: float | None
    baseline_ci95: Interval | None
    gain_ci95: Interval | None

    @property
    def beats_baseline(self) -> bool:
        """Whether the whole interval of the gain is above 0."""
        return self.gain_ci95 is not None and self.gain_ci95[0] > 0


def auroc(scores: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"], weights: Weights) -> float:
    """Probability that a positive sample has a higher score than a negative one; ties count half.

    NaN without a positive or without a negative sample.
    """
    return _auroc(scores, positive)(weights)


def spearman(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"], weights: Weights) -> float:
    """Rank correlation of weighted samples, -1 to 1; NaN where one of them is constant."""
    return _spearman(first, second)(weights)


def compare_auroc(
    scores: Float[np.ndarray, " n"],
    baseline: Float[np.ndarray, " n"],
    positive: Bool[np.ndarray, " n"],
    image: Int[np.ndarray, " n"],
    counts: Int[np.ndarray, "b p"],
) -> Ranking:
    """AUROC of a score and of a baseline.

    Args:
        image: index of the image of each sample.
        counts: see ``bootstrap.resample_counts``.
    """
    return _compare(lambda s: _auroc(s, positive), scores, baseline, image, counts)


def compare_spearman(
    scores: Float[np.ndarray, " n"],
    baseline: Float[np.ndarray, " n"],
    target: Float[np.ndarray, " n"],
    image: Int[np.ndarray, " n"],
    counts: Int[np.ndarray, "b p"],
) -> Ranking:
    """Rank correlation of a score and of a baseline with a target; arguments as :func:`compare_auroc`."""
    return _compare(lambda s: _spearman(s, target), scores, baseline, image, counts)


def _compare(
    measure: Callable[[Float[np.ndarray, " n"]], Measure],
    scores: Float[np.ndarray, " n"],
    baseline: Float[np.ndarray, " n"],
    image: Int[np.ndarray, " n"],
    counts: Int[np.ndarray, "b p"],
) -> Ranking:
    """The comparison, where ``measure`` sorts scores once for all resamples."""
    even = np.ones(len(scores))
    measures = [measure(s) for s in (scores, baseline)]
    resampled = np.array(
        [[m(weights) for m in measures] for weights in (row[image].astype(np.float64) for row in counts)]
    ).reshape(-1, 2)
    return Ranking(
        _defined(measures[0](even)),
        interval(resampled[:, 0]),
        _defined(measures[1](even)),
        interval(resampled[:, 1]),
        interval(resampled[:, 0] - resampled[:, 1]),
    )


def _auroc(scores: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]) -> Measure:
    groups, rank = np.unique(scores, return_inverse=True)
    ranks_of_positive, ranks_of_negative = rank[positive], rank[~positive]

    def measure(weights: Weights) -> float:
        of_positive = np.bincount(ranks_of_positive, weights[positive], minlength=len(groups))
        of_negative = np.bincount(ranks_of_negative, weights[~positive], minlength=len(groups))
        total = of_positive.sum() * of_negative.sum()
        if not total:
            return float("nan")
        below = np.cumsum(of_negative) - of_negative / 2
        return float(of_positive @ below / total)

    return measure


def _spearman(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]) -> Measure:
    both = [_ranks(values) for values in (first, second)]

    def measure(weights: Weights) -> float:
        total = weights.sum()
        if not total:
            return float("nan")
        a, b = (ranks - weights @ ranks / total for ranks in (of(weights) for of in both))
        scale = np.sqrt((weights @ a**2) * (weights @ b**2))
        return float(weights @ (a * b) / scale) if scale > 0 else float("nan")

    return measure


def _ranks(values: Float[np.ndarray, " n"]) -> Callable[[Weights], Float[np.ndarray, " n"]]:
    """A function that gives mean ranks, where a sample of weight w stands for w equal ones."""
    groups, group = np.unique(values, return_inverse=True)

    def ranks(weights: Weights) -> Float[np.ndarray, " n"]:
        size = np.bincount(group, weights, minlength=len(groups))
        mean: Float[np.ndarray, " n"] = (np.cumsum(size) - size / 2)[group]
        return mean

    return ranks


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else value
