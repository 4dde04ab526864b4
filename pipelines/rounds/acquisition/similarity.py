"""Cosine similarity of embeddings, in blocks that bound the memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipelines.rounds.acquisition.function import Values, Vectors
from pipelines.rounds.acquisition.neighbours import nearest_similarity

BLOCK = 1 << 16
"""Rows that are converted to float32 at a time."""


class CentredVectors:
    """Embeddings relative to their mean.

    Images of one product resemble each other, so their embeddings have a large common part, and all cosines
    are near 1. Without the common part they spread over -1 to 1.

    Args:
        vectors: n x d, rows of length 1.
    """

    def __init__(self, vectors: Vectors) -> None:
        total = np.zeros(vectors.shape[1])
        for start in range(0, len(vectors), BLOCK):
            total += vectors[start : start + BLOCK].astype(np.float64).sum(0)
        self._mean = (total / max(len(vectors), 1)).astype(np.float32)

    def of(self, vectors: Vectors) -> NDArray[np.float32]:
        """Rows of length 1 without the mean; a row that equals the mean becomes 0."""
        centred = vectors.astype(np.float32) - self._mean
        length = np.linalg.norm(centred, axis=1, keepdims=True)
        return np.where(length > 1e-6, centred / np.maximum(length, 1e-6), 0.0).astype(np.float32)


class SimilarityPenalty:
    """The factor ``1 - max(0, s)`` of each row, s: highest similarity with a labelled or a selected image.

    Args:
        vectors: of the candidates, n x d; None: the factor is 1 for all of ``count`` rows.
        labelled: of the labelled images, m x d.
    """

    def __init__(self, vectors: Vectors | None, labelled: Vectors, count: int) -> None:
        self._vectors: NDArray[np.float32] | None = None
        self._highest: NDArray[np.float32] = np.zeros(count, dtype=np.float32)
        if vectors is not None:
            centre = CentredVectors(vectors)
            self._vectors = centre.of(vectors)
            if len(labelled):
                nearest = nearest_similarity(self._vectors, centre.of(labelled))
                self._highest = np.maximum(nearest, 0.0)

    def factors(self) -> Values:
        """One factor per row, 0 to 1."""
        return np.clip(1.0 - self._highest, 0.0, 1.0).astype(np.float64)

    def add(self, row: int) -> None:
        """Count a row as selected."""
        if self._vectors is not None:
            np.maximum(self._highest, self._vectors @ self._vectors[row], out=self._highest)
