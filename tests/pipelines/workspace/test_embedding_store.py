"""Embeddings on disk are those that were appended, also after a kill in the middle of a record."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dsmoe_core.errors import WorkspaceError
from pipelines.workspace.embedding_store import EmbeddingStore


def write(store: EmbeddingStore, *rows: tuple[str, tuple[float, ...]]) -> None:
    with store.writer("m+b") as writer:
        for key, vector in rows:
            writer.add(key, np.array(vector, dtype=np.float32))


def test_vectors_are_scaled_to_length_1_and_read_by_key(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path)
    assert (len(store.read("m+b")), store.read("m+b").missing(["a"])) == (0, ["a"])
    write(store, ("b", (0.0, 2.0)), ("a", (3.0, 4.0)))
    write(store, ("c", (-1.0, 0.0)), ("a", (1.0, 0.0)))
    found = store.read("m+b")
    assert (len(found), found.width) == (4, 2)
    assert found.vectors(["c", "a", "b"]).tolist() == [[-1, 0], [1, 0], [0, 1]]  # the newest of a
    assert found.vectors(["a"]).dtype == np.float16
    assert found.missing(["a", "x", "b"]) == ["x"]
    with pytest.raises(WorkspaceError):
        found.vectors(["a", "x"])


def test_a_torn_record_is_ignored_and_overwritten(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path)
    write(store, ("a", (1.0, 0.0)), ("b", (0.0, 1.0)))
    path = store.path("m+b")
    path.write_bytes(path.read_bytes()[:-3])
    assert store.read("m+b").missing(["a", "b"]) == ["b"]
    write(store, ("c", (0.0, -1.0)))
    assert store.read("m+b").missing(["a", "b", "c"]) == ["b"]
    assert store.read("m+b").vectors(["c", "a"]).tolist() == [[0, -1], [1, 0]]


def test_a_record_without_data_counts_as_missing(tmp_path: Path) -> None:
    """A crash of the machine can leave zeros where a record was announced."""
    store = EmbeddingStore(tmp_path)
    write(store, ("a", (1.0, 0.0)), ("b", (0.0, 1.0)))
    path = store.path("m+b")
    content = bytearray(path.read_bytes())
    content[-4:] = bytes(4)
    path.write_bytes(content)
    assert store.read("m+b").missing(["a", "b"]) == ["b"]


def test_another_width_and_another_kind_of_file_are_refused(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path)
    write(store, ("a", (1.0, 0.0)))
    with pytest.raises(WorkspaceError):
        write(store, ("b", (1.0, 0.0, 0.0)))
    store.path("m+b").write_bytes(b"x" * 200)
    with pytest.raises(WorkspaceError):
        store.read("m+b")


def test_a_vector_of_length_0_is_not_stored(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path)
    write(store, ("a", (0.0, 0.0)))
    assert not store.path("m+b").exists()
