"""Calibration of detection scores: reliability bins, expected calibration error, temperature scaling.

After Guo et al., "On Calibration of Modern Neural Networks", 2017, applied to the sigmoid score of each
detection. A detection is correct if it matches a ground-truth box of its class at IoU 0.5. A calibrated
detector is correct in 80 % of the detections with a score of 0.8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from dsmoe_core.evaluation.matching import ImageMatches

BINS = 10
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
"""A fitted temperature outside this range means that the data does not determine one."""
_EPSILON = 1e-6
"""Distance from 0 and 1 at which scores are clipped before the logit."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Detections with scores from ``low`` up to ``high``.

    Attributes:
        count: number of detections.
        mean_score: None for an empty bin.
        precision: share of correct detections, 0 to 1; None for an empty bin.
    """

    low: float
    high: float
    count: int
    mean_score: float | None
    precision: float | None


@dataclass(frozen=True, slots=True)
class TemperatureScaling:
    """Temperature scaling fitted on one half of the images and evaluated on the other half.

    Attributes:
        temperature: scaled score = sigmoid(logit / temperature); above 1 the detector is overconfident.
        fitted_on, evaluated_on: numbers of detections in each half.
        before, after: ECE on the evaluated half, without and with scaling.
    """

    temperature: float
    fitted_on: int
    evaluated_on: int
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """Calibration of a detector on a test set.

    Attributes:
        detections: number of detections.
        error: ECE over all detections; None without detections.
        bins: for a reliability diagram.
        scaling: None if no temperature can be fitted: a half of the images has no detections, or only correct
            or only false ones, or its scores are anti-correlated with correctness.
    """

    detections: int
    error: float | None
    bins: tuple[Bin, ...]
    scaling: TemperatureScaling | None


def calibration(matched: Sequence[ImageMatches], seed: int) -> Calibration:
    """Measure reliability, ECE and the effect of temperature scaling. Scores are not changed.

    Args:
        seed: of the split of the images into two halves.
    """
    score, correct = _pooled(matched)
    order = np.random.default_rng(seed).permutation(len(matched))
    first, second = ([matched[i] for i in half] for half in (order[::2], order[1::2]))
    return Calibration(
        detections=len(score),
        error=expected_calibration_error(score, correct),
        bins=reliability(score, correct),
        scaling=_scaling(first, second),
    )


def reliability(
    score: Float[np.ndarray, " n"], correct: Bool[np.ndarray, " n"], bins: int = BINS
) -> tuple[Bin, ...]:
    """Group detections by score into bins of equal width."""
    index = np.minimum((score * bins).astype(int), bins - 1)
    result = []
    for i in range(bins):
        inside = index == i
        count = int(inside.sum())
        mean_score, precision = (float(v[inside].mean()) if count else None for v in (score, correct))
        result.append(Bin(i / bins, (i + 1) / bins, count, mean_score, precision))
    return tuple(result)


def expected_calibration_error(
    score: Float[np.ndarray, " n"], correct: Bool[np.ndarray, " n"]
) -> float | None:
    """ECE: the mean of |mean score - precision| over the bins, weighted by count; None without detections."""
    gaps = [
        b.count * abs(b.mean_score - b.precision)
        for b in reliability(score, correct)
        if b.mean_score is not None and b.precision is not None
    ]
    return sum(gaps) / len(score) if len(score) else None


def fit_temperature(score: Float[np.ndarray, " n"], correct: Bool[np.ndarray, " n"]) -> float | None:
    """The temperature of the lowest negative log likelihood; None if it lies outside the allowed range.

    The loss is convex in the inverse temperature, so bisection on its derivative finds the minimum.
    """
    log_odds = logit(score)

    def slope(inverse: float) -> float:
        return float((log_odds * (sigmoid(inverse * log_odds) - correct)).sum())

    low, high = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
    if not slope(low) < 0 < slope(high):
        return None
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 2 / (low + high)


def scale_scores(score: Float[np.ndarray, " n"], temperature: float) -> Float[np.ndarray, " n"]:
    """Apply temperature scaling to scores."""
    return sigmoid(logit(score) / temperature)


def _scaling(
    fit_half: Sequence[ImageMatches], evaluation_half: Sequence[ImageMatches]
) -> TemperatureScaling | None:
    score, correct = _pooled(fit_half)
    temperature = fit_temperature(score, correct)
    test_score, test_correct = _pooled(evaluation_half)
    before = expected_calibration_error(test_score, test_correct)
    if temperature is None or before is None:
        return None
    after = expected_calibration_error(scale_scores(test_score, temperature), test_correct)
    if after is None:
        return None
    return TemperatureScaling(temperature, len(score), len(test_score), before, after)


def _pooled(matched: Sequence[ImageMatches]) -> tuple[Float[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Scores and correctness of the detections of all images."""
    scores = [np.zeros(0), *(p.scores for p in matched)]
    correct = [np.zeros(0, dtype=bool), *(p.correct for p in matched)]
    return np.concatenate(scores), np.concatenate(correct)


def logit(probabilities: Float[np.ndarray, "*s"], epsilon: float = _EPSILON) -> Float[np.ndarray, "*s"]:
    """Log odds of probabilities.

    Args:
        epsilon: distance from 0 and 1 at which they are clipped, so that the log odds are finite.
    """
    p = np.clip(probabilities, epsilon, 1 - epsilon)
    odds: Float[np.ndarray, "*s"] = np.log(p / (1 - p))
    return odds


def sigmoid(log_odds: Float[np.ndarray, "*s"]) -> Float[np.ndarray, "*s"]:
    """Probabilities of log odds."""
    probabilities: Float[np.ndarray, "*s"] = 0.5 * (1 + np.tanh(log_odds / 2))
    return probabilities
