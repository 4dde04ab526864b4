"""Embeddings of images on disk, in ``predictions/VERSION.embeddings`` next to the predictions of a version.

A file is a header and records of one size: the image key and the vector in float16. Records are appended one
by one, so an interrupted run continues where it stopped: an incomplete last record is ignored, and the next
writer overwrites it. A record whose vector is not of length 1, as a crash of the machine can leave, counts as
missing. Readers map the file into memory and hold the order of the keys only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from dsmoe_core.atomic import disk_full_as_error
from dsmoe_core.errors import WorkspaceError

KEY_BYTES = 64
_MAGIC = b"dsmoe-embeddings"
_HEADER = 32
_TOLERANCE = 0.02
"""Deviation of a vector's length from 1 that float16 can cause."""


class EmbeddingStore:
    """The embeddings in the predictions folder of a workspace.

    Args:
        folder: created by the first writer.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, version: str) -> Path:
        """The file of a version, ``MODEL+BOOK``."""
        return self._folder / f"{version}.embeddings"

    def read(self, version: str) -> Embeddings:
        """The embeddings of a version that are stored now.

        Raises:
            WorkspaceError: the file is damaged.
        """
        return Embeddings(self.path(version))

    @contextmanager
    def writer(self, version: str) -> Iterator[EmbeddingWriter]:
        """Append embeddings to a version; one writer at a time.

        Raises:
            WorkspaceError: the file is damaged.
            PrerequisiteError: the disk is full.
        """
        path = self.path(version)
        path.parent.mkdir(parents=True, exist_ok=True)
        with disk_full_as_error(path):
            writer = EmbeddingWriter(path)
            try:
                yield writer
            finally:
                writer.close()


class EmbeddingWriter:
    """Appends embeddings to one file, which is created with the first of them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._width = _width(path) or None  # 0: of predictions without embeddings
        self._file: IO[bytes] | None = path.open("r+b") if self._width else None
        if self._file is not None:
            record = _record(self._width or 0).itemsize
            complete = (path.stat().st_size - _HEADER) // record
            self._file.truncate(_HEADER + complete * record)
            self._file.seek(0, os.SEEK_END)

    def add(self, key: str, vector: NDArray[np.floating]) -> None:
        """Append one embedding, scaled to length 1; a vector of length 0 is not stored.

        Args:
            key: of the image, at most 64 bytes.
            vector: of any length, with as many values as the others of the version.

        Raises:
            WorkspaceError: the vector has another width than the stored ones, or the key is too long.
        """
        length = float(np.linalg.norm(vector.astype(np.float64)))
        if not np.isfinite(length) or length == 0:
            return
        name = key.encode()
        if len(name) > KEY_BYTES or (self._width is not None and len(vector) != self._width):
            raise WorkspaceError(
                f"the embedding of {key} has {len(vector)} values and a key of {len(name)} bytes; "
                f"{self._path} expects {self._width or 'any number of'} values and at most {KEY_BYTES} bytes",
                "Delete the file; the next round makes it again.",
            )
        if self._file is None:
            self._width = len(vector)
            self._file = self._path.open("wb")
            self._file.write(_header(self._width))
        record = np.zeros((), dtype=_record(len(vector)))
        record["key"], record["vector"] = name, vector / length
        self._file.write(record.tobytes())
        self._file.flush()

    def add_none(self) -> None:
        """Record that the detector makes no embeddings, so that a missing file means that they were lost."""
        if self._file is None and not self._path.exists():
            self._path.write_bytes(_header(0))

    def close(self) -> None:
        """Write everything to the disk."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()


class Embeddings:
    """The embeddings in one file, mapped into memory when they are accessed first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.width = _width(path) or 0
        """Values of a vector; 0 if nothing is stored."""
        self.made = self.width > 0 or not path.is_file()
        """Whether the detector makes embeddings, as far as the file says."""

    @cached_property
    def _records(self) -> NDArray[np.void]:
        dtype = _record(self.width)
        count = (self._path.stat().st_size - _HEADER) // dtype.itemsize if self.width else 0
        if not count:
            return np.zeros(0, dtype=dtype)
        return np.memmap(self._path, dtype=dtype, mode="r", offset=_HEADER, shape=(count,))

    @cached_property
    def _order(self) -> tuple[NDArray[np.bytes_], NDArray[np.int64]]:
        """The keys in ascending order, and the row of each; of equal keys the newest is last."""
        keys = np.array(self._records["key"])
        order = np.argsort(keys, kind="stable")
        return keys[order], order

    def __len__(self) -> int:
        return len(self._records)

    def missing(self, keys: Sequence[str]) -> list[str]:
        """The keys without a stored embedding."""
        rows = self._rows(keys)
        return [key for key, row in zip(keys, rows, strict=True) if row < 0]

    def vectors(self, keys: Sequence[str]) -> NDArray[np.float16]:
        """One row per key, of length 1.

        Raises:
            WorkspaceError: a key has none.
        """
        rows = self._rows(keys)
        if (rows < 0).any():
            first = keys[int(np.argmax(rows < 0))]
            raise WorkspaceError(
                f"{self._path} lacks {int((rows < 0).sum())} of {len(keys)} embeddings, such as of {first}",
                "Delete the file; the next round makes it again.",
            )
        found: NDArray[np.float16] = np.ascontiguousarray(self._records["vector"][rows])
        return found

    def _rows(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """The newest row of each key, -1 where there is none or its vector is not of length 1."""
        ordered, order = self._order
        wanted = np.array([key.encode() for key in keys], dtype=f"S{KEY_BYTES}")
        if not len(ordered) or not len(wanted):
            return np.full(len(wanted), -1, dtype=np.int64)
        place = np.searchsorted(ordered, wanted, side="right") - 1
        rows = np.where((place >= 0) & (ordered[place] == wanted), order[place], -1)
        for start in range(0, len(rows), 1 << 16):
            block = rows[start : start + (1 << 16)]
            lengths = np.linalg.norm(self._records["vector"][block].astype(np.float32), axis=1)
            block[np.abs(lengths - 1) > _TOLERANCE] = -1
        return rows


def _record(width: int) -> np.dtype[np.void]:
    return np.dtype([("key", f"S{KEY_BYTES}"), ("vector", "<f2", (width,))])


def _header(width: int) -> bytes:
    return _MAGIC + width.to_bytes(_HEADER - len(_MAGIC), "little")


def _width(path: Path) -> int | None:
    """Values of a vector in this file, 0 if the detector makes none; None if there is no file.

    Raises:
        WorkspaceError: it is another kind of file.
    """
    if not path.is_file() or path.stat().st_size < _HEADER:
        return None
    with path.open("rb") as file:
        header = file.read(_HEADER)
    if not header.startswith(_MAGIC):
        raise WorkspaceError(
            f"{path} is not a file of embeddings", "Delete the file; the next round makes it again."
        )
    return int.from_bytes(header[len(_MAGIC) :], "little")
