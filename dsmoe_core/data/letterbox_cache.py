"""Cache of letterboxed images on disk (LMDB), so that an image is decoded once and not in every training.

The raw pixels are stored under the image's key. Each combination of side, preprocessing, Pillow version and
letterboxing code has its own store (``lmdb_store.py``).
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
"""Default size limit of one cache. LMDB reserves this much address space; the file grows with its content."""
_CONTENT_KEY = re.compile("[0-9a-f]{64}(@.*)?")  # sha256; "@" and the position follow for a tile
_CODE_VERSION: Final = hashlib.sha256(Path(letterbox.__file__).read_bytes()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """Location and size limit of a cache.

    Attributes:
        folder: created if missing; holds one store per combination of settings.
        max_bytes: size limit of a store. Images beyond it are decoded every time.
    """

    folder: Path
    max_bytes: int = MAX_BYTES


def letterbox_reader(model: ModelConfig, cache: CacheConfig | None) -> LetterboxReader | LetterboxCache:
    """The image reader of a model, with a cache unless it is None.

    Raises:
        PrerequisiteError: the disk of the cache is full, or its folder cannot be written.
    """
    reader = LetterboxReader.for_model(model)
    return reader if cache is None else LetterboxCache(reader, cache)


class LetterboxCache:
    """Reads letterboxed images from a cache on disk. Several processes may use the same cache at a time.

    Args:
        reader: reads the images that are not in the cache yet.
        cache: location. Images whose key is not a sha256 of their content are not cached.

    Raises:
        PrerequisiteError: the disk is full, or the folder cannot be written.
    """

    def __init__(self, reader: LetterboxReader, cache: CacheConfig) -> None:
        self._reader = reader
        self._store = LmdbStore(cache.folder, _CODE_VERSION, _settings(reader), cache.max_bytes)

    @property
    def side(self) -> int:
        """Side of the square in pixels."""
        return self._reader.side

    def read(self, image: ImageRecord) -> UInt8[np.ndarray, "side side 3"]:
        """Read one image; one that is not cached is decoded, and written with the next :meth:`flush`.

        Raises:
            PrerequisiteError: the disk is full.
        """
        if not _CONTENT_KEY.fullmatch(image.key):
            return self._reader.read(image)
        key = hashlib.sha256(image.key.encode()).digest()
        cached = self._store.get(key)
        shape = (self.side, self.side, 3)
        if cached is not None and len(cached) == np.prod(shape):
            return np.frombuffer(cached, dtype=np.uint8).reshape(shape)
        square = self._reader.read(image)
        self._store.put(key, square.tobytes())
        return square

    def flush(self) -> None:
        """Write the images that were decoded since the last call.

        Raises:
            PrerequisiteError: the disk is full.
        """
        self._store.flush()


def _settings(reader: LetterboxReader) -> bytes:
    """Everything that determines the pixels of a letterboxed image."""
    shape = {"side": reader.side, "preprocessing": reader.preprocessing.model_dump(mode="json")}
    return json.dumps({**shape, "made_by": _CODE_VERSION, "pillow": PIL.__version__}, sort_keys=True).encode()
