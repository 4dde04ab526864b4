"""Acquisition function ``core-set``: images that cover the pool, by k-center greedy on the embeddings."""

from __future__ import annotations

import numpy as np

from pipelines.rounds.acquisition.function import AcquisitionFunction, Candidates, Values, Vectors
from pipelines.rounds.acquisition.neighbours import nearest_similarity
from pipelines.rounds.acquisition.pool_arrays import PoolArrays, descending
from pipelines.rounds.acquisition.similarity import BLOCK


def core_set_scores(candidates: Candidates) -> dict[str, float]:
    """The distance of each image to the nearest labelled or earlier selected one, 0 to 2.

    Follows Sener and Savarese, "Active learning for convolutional neural networks: a core-set approach",
    2018, algorithm 1 (k-center greedy): the image farthest from all centres becomes the next centre. Differs:
    Euclidean distance of embeddings of length 1; without a labelled image the first centre is the image
    nearest to the mean; the robust variant with outliers (algorithm 2) is not implemented.

    Raises:
        SettingsError: the detector makes no embeddings.
    """
    pool = PoolArrays(candidates)
    vectors = pool.vectors("core-set")
    if vectors is None:
        return {}
    labelled = candidates.labelled_embeddings()
    if len(labelled):
        distance = _distance(nearest_similarity(vectors, labelled).astype(np.float64))
    else:
        distance = np.full(len(pool), np.inf)
    order: list[int] = []
    picked: list[float] = []
    open_rows = np.ones(len(pool), dtype=bool)
    for _ in range(min(candidates.budget, len(pool))):
        if not order and not len(labelled):
            row = int(np.argmax(_similarity(vectors, np.asarray(vectors, dtype=np.float32).mean(0))))
        else:
            row = int(np.argmax(np.where(open_rows, distance, -np.inf)))
        order.append(row)
        picked.append(min(float(distance[row]), 2.0))
        open_rows[row] = False
        to_row = _distance(_similarity(vectors, np.asarray(vectors[row], dtype=np.float32)))
        distance = np.minimum(distance, to_row)
    return pool.scores(descending(order, picked, distance))


def _similarity(vectors: Vectors, vector: Vectors) -> Values:
    parts = [
        vectors[start : start + BLOCK].astype(np.float32) @ vector for start in range(0, len(vectors), BLOCK)
    ]
    return np.concatenate(parts).astype(np.float64)


def _distance(cosine: Values) -> Values:
    """Euclidean distance of vectors of length 1 from their cosine."""
    distance: Values = np.sqrt(np.maximum(2.0 - 2.0 * cosine, 0.0))
    return distance


CORE_SET = AcquisitionFunction(
    "images that are far from all labelled ones", core_set_scores, needs_embeddings=True
)
