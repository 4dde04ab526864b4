"""Letter-boxed images kept on disk in LMDB, so that an image is decoded once and not in every training.

What is kept is the raw square, under the image's key, in a store of its own (``store.py``) for every way of
reading: side, preprocessing, Pillow's version and the code that makes squares.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import PIL
from jaxtyping import UInt8

from dsmoe_core.config import ModelConfig
from dsmoe_core.data import letterbox
from dsmoe_core.data.letterbox import LetterboxReader
from dsmoe_core.data.lmdb_store import LmdbStore
from dsmoe_core.schema import ImageRecord

MAX_BYTES = 8 << 30
"""Of one cache, by default. So much address space is reserved; the file grows with what is in it."""
_NAMES_CONTENT = re.compile("[0-9a-f]{64}(@.*)?")  # what comes after the sha256 is the place of a tile
_MADE_BY: Final = hashlib.sha256(Path(letterbox.__file__).read_bytes()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """Where squares may be kept.

    Attributes:
        folder: made if missing; there is one cache in it for every way of reading.
        max_bytes: a cache of this size takes no more; further squares are made anew each time.
    """

    folder: Path
    max_bytes: int = MAX_BYTES


def letterbox_reader(model: ModelConfig, cache: CacheConfig | None) -> LetterboxReader | LetterboxCache:
    """Reads images as this model wants them, through a cache if there is one.

    Raises:
        PrerequisiteError: the disk of the cache is full, or its folder cannot be written.
    """
    squares = LetterboxReader.for_model(model)
    return squares if cache is None else LetterboxCache(squares, cache)


class LetterboxCache:
    """Squares that are read from disk where they were made before. Many processes may use one at a time.

    Args:
        squares: makes what is not there yet.
        cache: where. An image whose key is no sha256, and so names no content, is read from its file.

    Raises:
        PrerequisiteError: the disk is full, or the folder cannot be written.
    """

    def __init__(self, squares: LetterboxReader, cache: CacheConfig) -> None:
        self._squares = squares
        self._store = LmdbStore(cache.folder, _MADE_BY, _settings(squares), cache.max_bytes)

    @property
    def side(self) -> int:
        """Of the square, in pixels."""
        return self._squares.side

    def read(self, image: ImageRecord) -> UInt8[np.ndarray, "side side 3"]:
        """The image's square; one that is not there is made, and written with the next :meth:`flush`.

        Raises:
            PrerequisiteError: the disk is full.
        """
        if not _NAMES_CONTENT.fullmatch(image.key):
            return self._squares.read(image)
        key = hashlib.sha256(image.key.encode()).digest()
        kept = self._store.get(key)
        shape = (self.side, self.side, 3)
        if kept is not None and len(kept) == np.prod(shape):
            return np.frombuffer(kept, dtype=np.uint8).reshape(shape)
        square = self._squares.read(image)
        self._store.put(key, square.tobytes())
        return square

    def flush(self) -> None:
        """Write what was made since the last time.

        Raises:
            PrerequisiteError: the disk is full.
        """
        self._store.flush()


def _settings(squares: LetterboxReader) -> bytes:
    """All that decides what a square looks like."""
    shape = {"side": squares.side, "preprocessing": squares.preprocessing.model_dump(mode="json")}
    return json.dumps({**shape, "made_by": _MADE_BY, "pillow": PIL.__version__}, sort_keys=True).encode()
