"""Scores ``class`` and ``class_margin``: which class a box has, after temperature scaling.

The detector's class probabilities are independent. For the question which class an existing object has, their
logits are turned into a distribution: ``q = softmax(logit p / T)``. T is fitted on boxes that overlap with a
true box (Guo et al., "On Calibration of Modern Neural Networks", 2017).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from dsmoe_core.evaluation.calibration import logit

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
MIN_BOXES = 20
"""With fewer boxes no temperature is fitted."""
_EPSILON = 1e-6


class ClassScores(NamedTuple):
    """Scores of f detections.

    Attributes:
        entropy: of the class distribution, divided by that of the uniform one, 0 to 1.
        margin: 1 minus the probability of the detected class plus that of the best other one, 0 to 2; above 1
            if another class is more probable.
    """

    entropy: Float[np.ndarray, " f"]
    margin: Float[np.ndarray, " f"]


def class_scores(
    probabilities: Float[np.ndarray, "f c"], labels: Int[np.ndarray, " f"], temperature: float = 1.0
) -> ClassScores:
    """Compute the scores; 0 if there is one class only.

    Args:
        probabilities: of all classes, 0 to 1.
        labels: index of the detected class.
        temperature: above 1 for an overconfident detector.
    """
    count, classes = probabilities.shape
    if classes < 2 or not count:
        return ClassScores(np.zeros(count), np.zeros(count))
    log_q = log_softmax(logit(probabilities, _EPSILON) / temperature, axis=1)
    q = np.exp(log_q)
    entropy = -(q * log_q).sum(1) / np.log(classes)
    rows = np.arange(count)
    own = q[rows, labels]
    others = q.copy()
    others[rows, labels] = -1.0
    return ClassScores(entropy, 1 - own + others.max(1))


def fit_class_temperature(
    probabilities: Float[np.ndarray, "f c"], true_class: Int[np.ndarray, " f"]
) -> float:
    """The temperature of the lowest cross-entropy on boxes whose true class is known.

    1 with fewer than ``MIN_BOXES`` boxes, with one class, or if the best temperature is outside of the
    allowed range.
    """
    count, classes = probabilities.shape
    if count < MIN_BOXES or classes < 2:
        return 1.0
    log_odds = logit(probabilities, _EPSILON)

    def loss(log_temperature: float) -> float:
        log_q = log_softmax(log_odds / np.exp(log_temperature), axis=1)
        return -float(log_q[np.arange(count), true_class].mean())

    bounds = (float(np.log(MIN_TEMPERATURE)), float(np.log(MAX_TEMPERATURE)))
    found = float(minimize_scalar(loss, bounds=bounds, method="bounded").x)
    at_bound = min(found - bounds[0], bounds[1] - found) < 1e-2
    return 1.0 if at_bound else float(np.exp(found))
