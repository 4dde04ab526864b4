"""Acquisition function ``ppal``: a pool of uncertain images, from which diverse ones are selected."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from dsmoe_core.schema import Prediction
from pipelines.rounds.acquisition.function import AcquisitionFunction, Candidates, Values, Vectors
from pipelines.rounds.acquisition.pool_arrays import PoolArrays, descending, top_rows
from pipelines.rounds.acquisition.similarity import CentredVectors

ALPHA, BETA = 0.3, 0.2
"""Shape and maximum of the difficulty weight (section 3.2 of the paper)."""
POOL_FACTOR = 4
"""Size of the uncertain pool in budgets."""


def ppal_scores(candidates: Candidates) -> dict[str, float]:
    """Difficulty-calibrated uncertainty; the selected images come first, in the order of their selection.

    Follows Yang, Huang and Crowley, "Plug and play active learning for object detection", CVPR 2024:

    1. Difficulty-calibrated uncertainty: the sum over the detections of their entropy, times the weight
       ``1 + alpha beta log(1 + gamma d)``, ``gamma = exp(1 / alpha) - 1``, of a class with difficulty d. The
       most uncertain images, 4 budgets, are the pool of the second step.
    2. Class-conditioned diversity: a selection whose images differ in the content of the same classes.

    Differs: the paper averages ``1 - p^xi IoU^(1 - xi)`` during the training of the detector as d; here d is
    one minus the mean calibrated probability of the class's detections, weighted by itself, as any detector
    gives it. The paper compares the features of single detections; here an image has one embedding, and the
    similarity of two images is the cosine of the embeddings times the overlap of their classes (Bhattacharyya
    coefficient). The paper refines the k-center greedy centres by k-means; here they are the selection.

    Raises:
        SettingsError: the detector makes no embeddings.
    """
    pool = PoolArrays(candidates)
    vectors = pool.vectors("ppal")
    if vectors is None:
        return {}

    def values(prediction: Prediction) -> tuple[Mapping[str, float], ...]:
        entropy: dict[str, float] = {}
        expected: dict[str, float] = {}
        squared: dict[str, float] = {}
        for d in prediction.detections:
            p = candidates.probability(d)
            expected[d.label] = expected.get(d.label, 0.0) + p
            squared[d.label] = squared.get(d.label, 0.0) + p * p
            if d.is_top_class:
                entropy[d.label] = entropy.get(d.label, 0.0) + d.entropy
        return entropy, expected, squared

    _, (entropy, expected, squared) = pool.per_class(values, candidates.class_counts(), kinds=3)
    uncertainty = (entropy @ difficulty_weights(expected.sum(0), squared.sum(0))).astype(np.float64)
    rows = top_rows(uncertainty, POOL_FACTOR * candidates.budget)
    chosen = _diverse(vectors[rows], expected[rows], uncertainty[rows], candidates.budget)
    order = [int(rows[i]) for i in chosen]
    return pool.scores(descending(order, [float(uncertainty[row]) for row in order], uncertainty))


def difficulty_weights(expected: NDArray[np.float32], squared: NDArray[np.float32]) -> NDArray[np.float32]:
    """The weight of each class, 1 to 1 + beta.

    Args:
        expected: sum of the probabilities of the class's detections.
        squared: sum of their squares.
    """
    difficulty = 1 - np.divide(squared, expected, out=np.zeros_like(squared), where=expected > 0)
    gamma = math.exp(1 / ALPHA) - 1
    return (1 + ALPHA * BETA * np.log1p(gamma * difficulty)).astype(np.float32)


def _diverse(vectors: Vectors, expected: NDArray[np.float32], uncertainty: Values, budget: int) -> list[int]:
    """Rows by k-center greedy with the class-conditioned similarity; the first is the most uncertain one."""
    centred = CentredVectors(vectors).of(vectors)
    total = expected.sum(1, keepdims=True)
    shares = np.sqrt(np.divide(expected, total, out=np.zeros_like(expected), where=total > 0))
    distance = np.full(len(vectors), np.inf)
    chosen: list[int] = []
    row = int(np.argmax(uncertainty)) if len(uncertainty) else -1
    while len(chosen) < min(budget, len(vectors)):
        chosen.append(row)
        similarity = (centred @ centred[row]) * (shares @ shares[row])
        distance = np.minimum(distance, 1.0 - similarity)
        distance[chosen] = -np.inf
        row = int(np.argmax(distance))
    return chosen


PPAL = AcquisitionFunction(
    "uncertain images of difficult classes that differ from each other", ppal_scores, needs_embeddings=True
)
