"""Nearest neighbours of embeddings by cosine: exact for few vectors, by usearch (HNSW) for many."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsmoe_core.errors import PrerequisiteError
from pipelines.rounds.acquisition.function import Vectors

EXACT_LIMIT = 20_000
"""Up to this many vectors are compared one by one."""
_BLOCK = 1 << 10


def nearest_similarity(
    queries: Vectors, targets: Vectors, *, exact_limit: int = EXACT_LIMIT
) -> NDArray[np.float32]:
    """The highest cosine of each query with a target, -1 without targets.

    Args:
        queries: n x d, rows of length 1.
        targets: m x d, rows of length 1.
        exact_limit: above this number of targets, approximate neighbours by usearch are used.

    Raises:
        PrerequisiteError: there are more targets, and usearch is not installed.
    """
    highest = np.full(len(queries), -1.0, dtype=np.float32)
    if not len(targets) or not len(queries):
        return highest
    index = near_index(targets) if len(targets) > exact_limit else None
    exact = targets.astype(np.float32) if index is None else np.zeros((0, 0), dtype=np.float32)
    for start in range(0, len(queries), _BLOCK):
        block = queries[start : start + _BLOCK].astype(np.float32)
        if index is None:
            highest[start : start + _BLOCK] = (block @ exact.T).max(1)
        else:
            found = np.asarray(index.search(block, 1).distances, dtype=np.float32)
            highest[start : start + _BLOCK] = 1.0 - found.reshape(len(block), -1)[:, 0]
    return np.clip(highest, -1.0, 1.0)


def near_index(vectors: Vectors) -> Any:
    """A usearch index of vectors for the cosine distance; entry i is row i.

    Raises:
        PrerequisiteError: usearch is not installed.
    """
    try:
        from usearch.index import Index
    except ImportError as error:
        raise PrerequisiteError(
            "usearch is not installed; it finds near neighbours among many images",
            "Install it with `pip install 'dsmoe[active]'`.",
        ) from error
    index = Index(ndim=vectors.shape[1], metric="cos", dtype="f16")
    for start in range(0, len(vectors), _BLOCK):
        block = np.ascontiguousarray(vectors[start : start + _BLOCK], dtype=np.float32)
        index.add(np.arange(start, start + len(block), dtype=np.uint64), block)
    return index
