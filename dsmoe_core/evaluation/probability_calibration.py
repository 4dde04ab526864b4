"""Calibration of a score to the probability of an event, also with few events, and of detections per class.

The curve is that of beta calibration (Kull, Silva Filho and Flach, "Beta calibration", 2017)::

    logit p(z) = c + a * log sigmoid(z) - b * log(1 - sigmoid(z)),    a, b >= 0

where z is the standardised score. It rises with the score, is a logistic curve (Platt) where a = b, and the
identity is one of its members. The three parameters are the maximum of a posterior: the slopes have a normal
prior around 0 and the intercept one around the base rate, so the curve is the base rate as long as the data
says nothing else. The log posterior is concave, so the maximum is unique.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from pydantic import Field

from dsmoe_core.config import Frozen
from dsmoe_core.errors import DataError
from dsmoe_core.evaluation.calibration import logit, sigmoid
from dsmoe_core.evaluation.matching import ImageMatches

Transform = Literal["logit", "linear"]
SLOPE_SD, INTERCEPT_SD = 2.0, 2.0
"""Standard deviations of the priors of the slopes and of the intercept, in logits per standardised score."""
CLASS_SLOPE_SD, CLASS_INTERCEPT_SD = 0.5, 1.0
"""Standard deviations of the slopes and of the intercept of a class around those of all classes: classes
differ in level more than in shape. About four detections move the level half of the way, more if the
probability is near 0 or 1."""
PRIOR_WEIGHT = 1.0
"""Number of observations that ``prior_rate`` counts for in the base rate."""
_EPSILON = 1e-3
"""Distance from 0 and 1 at which scores are clipped before the logit."""
_MIN_SCALE = 1e-6


class Calibrator(Frozen):
    """A curve from a score to the probability of an event, which never falls as the score rises.

    JSON: ``model_dump_json`` and ``model_validate_json``.

    Attributes:
        transform: ``logit`` for scores that are probabilities, ``linear`` for any other score.
        location, scale: mean and standard deviation of the transformed scores that it was fitted on.
        low_slope, high_slope: a and b, the slopes below and above ``location``.
        intercept: c.
        base_rate: share of events in the fitted data, drawn towards the prior rate.
        count: number of observations that it was fitted on; with weights, the effective number.
    """

    transform: Transform = "logit"
    location: float = 0.0
    scale: float = Field(1.0, gt=0)
    low_slope: float = Field(1.0, ge=0)
    high_slope: float = Field(1.0, ge=0)
    intercept: float = 0.0
    base_rate: float = Field(0.5, gt=0, lt=1)
    count: float = Field(0.0, ge=0)

    def __call__(self, scores: Float[np.ndarray, "*s"]) -> Float[np.ndarray, "*s"]:
        """The probability of the event at each score, 0 to 1.

        Raises:
            DataError: a score is not finite or, with the transform ``logit``, outside 0 to 1.
        """
        z = (_transformed(scores, self.transform) - self.location) / self.scale
        low, high = _features(z)
        return sigmoid(self.intercept + self.low_slope * low + self.high_slope * high)

    def probability(self, score: float) -> float:
        """The probability of the event at one score."""
        return float(self(np.array([score], dtype=np.float64))[0])


class DetectionCalibration(Frozen):
    """The probability that a detection is correct, by class and score.

    A detection is correct if it matches a ground-truth box of its class at IoU 0.5 or more.

    Attributes:
        pooled: fitted on the detections of all classes; used for classes that were not seen.
        per_class: fitted on the detections of one class each, drawn towards ``pooled``.
    """

    pooled: Calibrator
    per_class: dict[str, Calibrator] = Field(default_factory=dict)

    def of(self, label: str) -> Calibrator:
        """The curve of a class."""
        return self.per_class.get(label, self.pooled)

    def probability(self, label: str, score: float) -> float:
        """Probability that a detection of this class and score is correct."""
        return self.of(label).probability(score)


def fit(
    scores: Float[np.ndarray, " n"],
    events: Bool[np.ndarray, " n"],
    weights: Float[np.ndarray, " n"] | None = None,
    *,
    transform: Transform = "logit",
    prior_rate: float = 0.5,
) -> Calibrator:
    """Fit the curve from score to probability of the event.

    Args:
        scores: higher means that the event is more probable; if that is not so, the curve is flat.
        events: whether the event occurred.
        weights: of the observations, 0 or more, such as inverse sampling probabilities. Only their ratios
            matter: they are scaled to the effective number of observations, (sum w)^2 / sum w^2.
        transform: ``logit`` for scores from 0 to 1 that resemble probabilities, ``linear`` for any other.
        prior_rate: probability of the event without any data; it counts as one observation.

    Raises:
        DataError: a score is not finite, or outside 0 to 1 with ``logit``; a weight is negative or not
            finite.
    """
    x, weight = _transformed(scores, transform), _effective_weights(len(scores), weights)
    total = float(weight.sum())
    rate = (float(weight @ events) + PRIOR_WEIGHT * prior_rate) / (total + PRIOR_WEIGHT)
    location = float(weight @ x) / total if total else 0.0
    variance = float(weight @ (x - location) ** 2) / total if total else 1.0
    start = Calibrator(
        transform=transform,
        location=location,
        scale=np.sqrt(variance) if variance > _MIN_SCALE**2 else 1.0,
        low_slope=0.0,
        high_slope=0.0,
        intercept=float(np.log(rate / (1 - rate))),
        base_rate=rate,
        count=total,
    )
    return _maximum(start, x, events, weight, np.array([SLOPE_SD, SLOPE_SD, INTERCEPT_SD]))


def fit_detections(matched: Sequence[ImageMatches]) -> DetectionCalibration:
    """Fit the probability that a detection is correct, for all classes and for each class.

    The curve of a class has a normal prior around the curve of all classes, so a class with few detections
    keeps the curve of all classes.

    Args:
        matched: images that the detector was not trained on, with their detections and ground truth.
    """
    rows: dict[str, list[tuple[float, bool]]] = {}
    for image in matched:
        for detection, correct in zip(image.detections, image.correct, strict=True):
            rows.setdefault(detection.label, []).append((detection.score, bool(correct)))
    return fit_by_class(rows)


def fit_by_class(by_class: Mapping[str, Sequence[tuple[float, bool]]]) -> DetectionCalibration:
    """The same as :func:`fit_detections` for any event of detections.

    Args:
        by_class: (score, whether the event occurred) of the detections of each class.
    """
    pooled = fit(*score_columns([row for rows in by_class.values() for row in rows]))
    per_class = {label: _shrunk(rows, pooled) for label, rows in sorted(by_class.items())}
    return DetectionCalibration(pooled=pooled, per_class=per_class)


def _shrunk(rows: Sequence[tuple[float, bool]], pooled: Calibrator) -> Calibrator:
    """The curve of one class, with the curve of all classes as its prior."""
    scores, events = score_columns(rows)
    rate = (events.sum() + PRIOR_WEIGHT * pooled.base_rate) / (len(rows) + PRIOR_WEIGHT)
    start = pooled.model_copy(update={"base_rate": float(rate), "count": float(len(rows))})
    x = _transformed(scores, pooled.transform)
    deviation = np.array([CLASS_SLOPE_SD, CLASS_SLOPE_SD, CLASS_INTERCEPT_SD])
    return _maximum(start, x, events, np.ones(len(rows)), deviation)


def score_columns(
    rows: Sequence[tuple[float, bool]],
) -> tuple[Float[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """The arguments ``scores`` and ``events`` of :func:`fit` from pairs of both."""
    return np.array([s for s, _ in rows], dtype=np.float64), np.array([e for _, e in rows], dtype=bool)


def _maximum(
    prior: Calibrator,
    x: Float[np.ndarray, " n"],
    events: Bool[np.ndarray, " n"],
    weight: Float[np.ndarray, " n"],
    deviation: Float[np.ndarray, " p"],
) -> Calibrator:
    """The curve of the highest posterior, where the prior is normal around the parameters of ``prior``."""
    from scipy.optimize import minimize  # takes a fraction of a second, which commands that only read save

    centre = np.array([prior.low_slope, prior.high_slope, prior.intercept])
    low, high = _features((x - prior.location) / prior.scale)
    design = np.stack([low, high, np.ones(len(x))], axis=1)

    def loss(parameters: Float[np.ndarray, " p"]) -> tuple[float, Float[np.ndarray, " p"]]:
        log_odds = design @ parameters
        distance = (parameters - centre) / deviation
        value = weight @ (np.logaddexp(0, log_odds) - events * log_odds) + 0.5 * distance @ distance
        residual = weight * (sigmoid(log_odds) - events)
        return float(value), design.T @ residual + distance / deviation

    bounds = [(0.0, None), (0.0, None), (None, None)]
    found = minimize(loss, centre, jac=True, method="L-BFGS-B", bounds=bounds).x
    values: Mapping[str, float] = {
        "low_slope": max(float(found[0]), 0.0),
        "high_slope": max(float(found[1]), 0.0),
        "intercept": float(found[2]),
    }
    return prior.model_copy(update=values)


def _features(z: Float[np.ndarray, "*s"]) -> tuple[Float[np.ndarray, "*s"], Float[np.ndarray, "*s"]]:
    """log sigmoid(z) and -log(1 - sigmoid(z)); both rise with z."""
    return -np.logaddexp(0, -z), np.logaddexp(0, z)


def _transformed(scores: Float[np.ndarray, "*s"], transform: Transform) -> Float[np.ndarray, "*s"]:
    if not np.isfinite(scores).all():
        raise DataError("a score is not finite; expected a number", "Leave it out or correct its function.")
    if transform == "linear":
        return scores.astype(np.float64)
    outside = scores[(scores < 0) | (scores > 1)]
    if outside.size:
        raise DataError(
            f"a score is {outside.flat[0]:g}; expected 0 to 1 for the transform logit",
            "Use the transform linear for this score.",
        )
    return logit(scores.astype(np.float64), _EPSILON)


def _effective_weights(count: int, weights: Float[np.ndarray, " n"] | None) -> Float[np.ndarray, " n"]:
    """Weights whose sum is the effective number of observations."""
    if weights is None:
        return np.ones(count)
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise DataError("a weight is negative or not finite; expected 0 or more", "Correct the weights.")
    squares = float((weights**2).sum())
    return weights.astype(np.float64) * (float(weights.sum()) / squares) if squares else np.zeros(count)
