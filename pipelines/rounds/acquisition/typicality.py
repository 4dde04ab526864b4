"""Acquisition function ``typicality``: typical images of the clusters without labels, for a cold start."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

from pipelines.rounds.acquisition.function import AcquisitionFunction, Candidates, Values, Vectors
from pipelines.rounds.acquisition.pool_arrays import PoolArrays, descending
from pipelines.rounds.acquisition.similarity import BLOCK, CentredVectors

MAX_CLUSTERS = 500
NEIGHBOURS = 20
MIN_CLUSTER = 5
"""Smaller clusters are selected from last."""
SAMPLE = 20_000
"""Vectors that the cluster centres are computed from."""
MEMBERS = 1000
"""Members of a cluster that neighbours are looked up among."""
_ITERATIONS = 20

Labels = NDArray[np.int64]


def typicality_scores(candidates: Candidates) -> dict[str, float]:
    """Selected images in the order of their selection; the others have their typicality, below them.

    Follows Hacohen, Dekel and Weinshall, "Active learning on a budget: opposite strategies suit high and low
    budgets", 2022 (TypiClust): k-means with as many clusters as there are labelled and selected images, at
    most 500; from the largest clusters with the fewest labelled images, the image with the highest
    typicality, the inverse mean distance to its 20 nearest neighbours in the cluster. Differs: embeddings of
    the present detector instead of a self-supervised network; the centres of large pools are computed from a
    sample, and neighbours are looked up among at most 1000 members of a cluster.

    Raises:
        SettingsError: the detector makes no embeddings.
    """
    pool = PoolArrays(candidates)
    raw = pool.vectors("typicality")
    if raw is None:
        return {}
    centre = CentredVectors(raw)
    vectors = centre.of(raw)
    known = candidates.labelled_embeddings()
    labelled = centre.of(known) if len(known) else np.zeros((0, vectors.shape[1]), dtype=np.float32)
    budget = min(candidates.budget, len(pool))
    count = min(len(labelled) + budget, MAX_CLUSTERS, len(pool) + len(labelled))
    clusters, of_labelled = _clusters(vectors, labelled, count, candidates.seed)
    typicality = _typicality(vectors, clusters, candidates.seed)
    order = _select(clusters, np.bincount(of_labelled, minlength=count), typicality, budget)
    return pool.scores(descending(order, [0.0] * len(order), typicality))


def _clusters(vectors: Vectors, labelled: Vectors, count: int, seed: int) -> tuple[Labels, Labels]:
    """The cluster of each vector and of each labelled one."""
    both = np.concatenate([vectors, labelled])
    rng = np.random.default_rng(seed)
    sample = both if len(both) <= SAMPLE else both[np.sort(rng.choice(len(both), SAMPLE, replace=False))]
    centres, _ = kmeans2(sample.astype(np.float64), count, iter=_ITERATIONS, minit="++", rng=rng)
    lengths = (centres**2).sum(1)
    parts = [
        np.argmin(lengths - 2 * both[start : start + BLOCK] @ centres.T, axis=1)
        for start in range(0, len(both), BLOCK)
    ]
    found = np.concatenate(parts).astype(np.int64)
    return found[: len(vectors)], found[len(vectors) :]


def _typicality(vectors: Vectors, clusters: Labels, seed: int) -> Values:
    """Inverse mean distance of each vector to its nearest neighbours in its cluster; 0 for a single one."""
    typicality = np.zeros(len(vectors))
    rng = np.random.default_rng(seed)
    for cluster in np.unique(clusters):
        rows = np.flatnonzero(clusters == cluster)
        among = rows if len(rows) <= MEMBERS else np.sort(rng.choice(rows, MEMBERS, replace=False))
        neighbours = min(NEIGHBOURS, len(among) - 1)
        if neighbours < 1:
            continue
        for start in range(0, len(rows), MEMBERS):
            block = rows[start : start + MEMBERS]
            squared = np.maximum(2.0 - 2.0 * (vectors[block] @ vectors[among].T), 0.0)
            squared[block[:, None] == among] = np.inf  # not its own neighbour
            nearest = np.partition(squared, neighbours - 1, axis=1)[:, :neighbours]
            typicality[block] = 1.0 / (np.sqrt(nearest).mean(1) + 1e-3)
    return typicality


def _select(clusters: Labels, labelled: Labels, typicality: Values, budget: int) -> list[int]:
    """Rows, each from the cluster with the fewest labelled or selected images, the largest first."""
    taken = labelled.astype(np.int64)
    ranked = {
        int(c): list(rows[np.argsort(typicality[rows], kind="stable")])
        for c in np.unique(clusters)
        if len(rows := np.flatnonzero(clusters == c))
    }
    sizes = {c: len(rows) for c, rows in ranked.items()}
    order: list[int] = []
    while len(order) < budget:
        cluster = min(ranked, key=lambda c: (sizes[c] < MIN_CLUSTER, taken[c], -sizes[c], c))
        order.append(int(ranked[cluster].pop()))
        taken[cluster] += 1
        if not ranked[cluster]:
            del ranked[cluster]
    return order


TYPICALITY = AcquisitionFunction(
    "typical images of parts of the pool without labels, for a first round",
    typicality_scores,
    needs_embeddings=True,
)
