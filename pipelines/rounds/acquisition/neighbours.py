"""Nearest neighbours of embeddings by cosine: exact for few vectors, by usearch (HNSW) for many."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsmoe_core.errors import PrerequisiteError
from pipelines.rounds.acquisition.function import Vectors

EXACT_LIMIT = 20_000
"""Targets are compared one by one if there are at most this many of them, or of the queries: an index of many
targets takes longer to build than a few queries take."""
_BLOCK = 1 << 10
_MAX_CELLS = 1 << 25
"""Largest number of cosines at a time."""


class Neighbours(NamedTuple):
    """The nearest targets of n queries, the nearest first.

    Attributes:
        rows: of the targets.
        cosines: with these targets, in [-1, 1].
    """

    rows: NDArray[np.int64]
    cosines: NDArray[np.float32]


def nearest_targets(
    queries: Vectors, targets: Vectors, count: int, *, exact_limit: int = EXACT_LIMIT
) -> Neighbours:
    """The ``count`` nearest targets of each query by cosine; fewer if there are fewer targets.

    Args:
        queries: n x d, rows of length 1.
        targets: m x d, rows of length 1.
        count: columns of the result.
        exact_limit: above this number of both, approximate neighbours by usearch are used.

    Raises:
        PrerequisiteError: there are more of both, and usearch is not installed.
    """
    count = min(count, len(targets))
    rows = np.zeros((len(queries), count), dtype=np.int64)
    cosines = np.zeros((len(queries), count), dtype=np.float32)
    if not count or not len(queries):
        return Neighbours(rows, cosines)
    index = near_index(targets) if min(len(targets), len(queries)) > exact_limit else None
    exact = targets.astype(np.float32) if index is None else np.zeros((0, 0), dtype=np.float32)
    step = _BLOCK if index is not None else max(1, min(_BLOCK, _MAX_CELLS // len(targets)))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        block = queries[part].astype(np.float32)
        if index is None:
            products = block @ exact.T
            rows[part] = _highest(products, count)
            cosines[part] = np.take_along_axis(products, rows[part], axis=1)
        else:
            found = index.search(block, count)
            rows[part] = np.asarray(found.keys, dtype=np.int64).reshape(len(block), count)
            distances = np.asarray(found.distances, dtype=np.float32).reshape(len(block), count)
            cosines[part] = 1.0 - distances
    return Neighbours(rows, np.clip(cosines, -1.0, 1.0))


def _highest(products: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Columns of the highest values of each row, the highest first; without sorting the whole row."""
    if count == 1:
        highest: NDArray[np.int64] = products.argmax(axis=1)[:, None]
        return highest
    columns = np.argpartition(-products, count - 1, axis=1)[:, :count]
    order = np.argsort(-np.take_along_axis(products, columns, axis=1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1)


def nearest_similarity(
    queries: Vectors, targets: Vectors, *, exact_limit: int = EXACT_LIMIT
) -> NDArray[np.float32]:
    """The highest cosine of each query with a target, -1 without targets; see :func:`nearest_targets`."""
    cosines = nearest_targets(queries, targets, 1, exact_limit=exact_limit).cosines
    return cosines[:, 0] if cosines.shape[1] else np.full(len(queries), -1.0, dtype=np.float32)


def near_index(vectors: Vectors) -> Any:
    """A usearch index of vectors for the cosine distance; entry i is row i.

    One thread builds it: several lose entries, other ones each time, so a round could not be repeated.

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
        index.add(np.arange(start, start + len(block), dtype=np.uint64), block, threads=1)
    return index
