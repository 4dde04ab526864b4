"""Whether scores are probabilities: of the detections with a score of 0.8, are four of five right?

Guo et al., "On Calibration of Modern Neural Networks", 2017: the expected calibration error (ECE) and
temperature scaling, here of single sigmoids, as every detection has a score of its own. A detection is right
where it is matched with a true box of its class at IoU 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from dsmoe_core.evaluation.matching import ImageMatches

BINS = 10
COLDEST, HOTTEST = 0.05, 20.0
"""Temperatures beyond these are no fit but a sign that there was nothing to fit to."""
_SURE = 1e-6  # a score of exactly 0 or 1 has no logit


@dataclass(frozen=True, slots=True)
class Bin:
    """Detections with scores from ``low`` up to ``high``.

    Attributes:
        score: their mean; None where there are none.
        right: the share of them that is right; None where there are none.
    """

    low: float
    high: float
    count: int
    score: float | None
    right: float | None


@dataclass(frozen=True, slots=True)
class TemperatureScaling:
    """Temperature scaling, fitted on one half of the images and judged on the other.

    Attributes:
        temperature: scores become sigmoid(logit / temperature); above 1 the detector is too sure of itself.
        fitted_on, evaluated_on: numbers of detections.
        before, after: ECE on the judged half.
    """

    temperature: float
    fitted_on: int
    evaluated_on: int
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far scores are from probabilities.

    Attributes:
        detections: how many there are; without any there is no figure.
        error: the ECE over all of them.
        scaling: None where no temperature fits: a half has no detections, only right or only false ones, or
            scores that lie on the wrong side of a half as a rule.
    """

    detections: int
    error: float | None
    bins: tuple[Bin, ...]
    scaling: TemperatureScaling | None


def calibration(matched: Sequence[ImageMatches], seed: int) -> Calibration:
    """Reliability, ECE and what a temperature would change; nothing is applied to the detections.

    Args:
        seed: divides the images into two halves.
    """
    score, right = _pooled(matched)
    order = np.random.default_rng(seed).permutation(len(matched))
    halves = [[matched[i] for i in half] for half in (order[::2], order[1::2])]
    return Calibration(
        len(score),
        expected_calibration_error(score, right),
        reliability(score, right),
        _scaling(halves[0], halves[1]),
    )


def reliability(
    score: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"], bins: int = BINS
) -> tuple[Bin, ...]:
    """The detections in bins of equal width, by score."""
    place = np.minimum((score * bins).astype(int), bins - 1)
    found = []
    for i in range(bins):
        inside = place == i
        count = int(inside.sum())
        mean, share = (float(v[inside].mean()) if count else None for v in (score, right))
        found.append(Bin(i / bins, (i + 1) / bins, count, mean, share))
    return tuple(found)


def expected_calibration_error(score: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"]) -> float | None:
    """ECE: the mean distance of score and share of right ones over the bins; None without detections."""
    bins = reliability(score, right)
    gaps = [b.count * abs(b.score - b.right) for b in bins if b.score is not None and b.right is not None]
    return sum(gaps) / len(score) if len(score) else None


def fit_temperature(score: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"]) -> float | None:
    """The temperature of the least negative log likelihood; None where it is not between the bounds.

    In its inverse the loss is convex, so its derivative has one root, which is found by halving.
    """
    logit = _logit(score)

    def slope(inverse: float) -> float:
        return float((logit * (_sigmoid(inverse * logit) - right)).sum())

    low, high = 1 / HOTTEST, 1 / COLDEST
    if not slope(low) < 0 < slope(high):
        return None
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 2 / (low + high)


def scale_scores(score: Float[np.ndarray, " n"], temperature: float) -> Float[np.ndarray, " n"]:
    """Scores after temperature scaling."""
    return _sigmoid(_logit(score) / temperature)


def _scaling(fitted: Sequence[ImageMatches], judged: Sequence[ImageMatches]) -> TemperatureScaling | None:
    score, right = _pooled(fitted)
    temperature = fit_temperature(score, right)
    other, other_right = _pooled(judged)
    before = expected_calibration_error(other, other_right)
    if temperature is None or before is None:
        return None
    after = expected_calibration_error(scale_scores(other, temperature), other_right)
    return None if after is None else TemperatureScaling(temperature, len(score), len(other), before, after)


def _pooled(matched: Sequence[ImageMatches]) -> tuple[Float[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    scores = [np.zeros(0), *(p.scores for p in matched)]
    rights = [np.zeros(0, dtype=bool), *(p.right for p in matched)]
    return np.concatenate(scores), np.concatenate(rights)


def _logit(score: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    inside = np.clip(score, _SURE, 1 - _SURE)
    answer: Float[np.ndarray, " n"] = np.log(inside / (1 - inside))
    return answer


def _sigmoid(logit: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    answer: Float[np.ndarray, " n"] = 0.5 * (1 + np.tanh(logit / 2))
    return answer
