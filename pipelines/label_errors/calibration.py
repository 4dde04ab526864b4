"""Multinomial logistic regression, fitted out of fold, that turns scores of a detector into probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
FOLDS = 5


def out_of_fold_probabilities(
    features: Floats, targets: Indices, classes: int, groups: Indices, *, penalty: float
) -> Floats:
    """Probability of every class for each of n rows, from models that were fitted without the row's fold.

    Without this a wrong label would train the model that is to question it (Northcutt et al., "Confident
    Learning", 2021).

    Args:
        features: (n, d).
        targets: class of each row, (n,).
        classes: number of classes.
        groups: image of each row, (n,); an image is in one fold.
        penalty: weight of the squared coefficients, without the intercept, in units of one row.

    Returns:
        (n, classes), each row sums to 1.
    """
    folds = groups % FOLDS
    result = np.full((len(features), classes), 1.0 / classes)
    for fold in range(FOLDS):
        inside = folds == fold
        if not inside.any():
            continue
        weights = _fit(features[~inside], targets[~inside], classes, penalty)
        result[inside] = softmax(_with_intercept(features[inside]) @ weights, axis=1)
    return result


def _fit(features: Floats, targets: Indices, classes: int, penalty: float) -> Floats:
    """Coefficients (d + 1, classes) of the lowest penalised negative log likelihood."""
    x = _with_intercept(features)
    truth = np.eye(classes)[targets]
    shape = (x.shape[1], classes)
    penalties = np.full(shape, penalty)
    penalties[-1] = 1e-3  # the intercept is nearly free; the little keeps the optimum unique

    def loss(flat: Any) -> tuple[float, Any]:
        weights = flat.reshape(shape)
        scores = x @ weights
        value = float(
            (logsumexp(scores, axis=1) - (scores * truth).sum(axis=1)).sum()
            + (penalties * weights**2).sum() / 2
        )
        gradient = x.T @ (softmax(scores, axis=1) - truth) + penalties * weights
        return value, gradient.ravel()

    found = minimize(loss, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    weights: Floats = found.x.reshape(shape)
    return weights


def _with_intercept(features: Floats) -> Floats:
    return np.hstack([features, np.ones((len(features), 1))])
