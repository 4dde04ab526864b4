"""Cache of text vectors on disk."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dsmoe_core.errors import ModelError
from dsmoe_core.text_encoders.protocol import TextEncoder

_WIDTH = "\0width"
"""Cache key of the width; not a valid text."""


class CachedTextEncoder:
    """A text encoder that stores its vectors in a folder, one file per hash of encoder name and text.

    Damaged files are written again.

    Args:
        encoder: encodes texts that are not in the cache.
        folder: created if it does not exist.
    """

    def __init__(self, encoder: TextEncoder, folder: Path) -> None:
        self._encoder = encoder
        self._folder = folder

    @property
    def name(self) -> str:
        """Name of the wrapped encoder."""
        return self._encoder.name

    @cached_property
    def width(self) -> int:
        """Length of a vector; cached, so that cached texts need no running server."""
        cached = self._read(_WIDTH)
        if cached is None:
            cached = torch.tensor([self._encoder.width])
            self._write(_WIDTH, cached)
        return int(cached)

    def encode(self, texts: Sequence[str]) -> Float[Tensor, "t w"]:
        """One vector per text, in order.

        Raises:
            ModelError: the encoder's vectors have another width than the cached ones of the same name.
        """
        known = {text: self._read(text) for text in dict.fromkeys(texts)}
        missing = [text for text, vector in known.items() if vector is None]
        if missing:
            encoded = self._encoder.encode(missing)
            if encoded.shape[1] != self.width:
                raise ModelError(
                    f"text encoder {self.name} has vectors of width {encoded.shape[1]}; "
                    f"expected {self.width}, as in the cache",
                    f"If the encoder was changed, empty {self._folder} and train again.",
                )
            for text, vector in zip(missing, encoded, strict=True):
                self._write(text, vector)
                known[text] = vector
        rows = [known[text] for text in texts]
        return torch.stack([row for row in rows if row is not None]) if rows else torch.zeros(0, self.width)

    def _path(self, text: str) -> Path:
        digest = hashlib.sha256(f"{self.name}\0{text}".encode()).hexdigest()
        return self._folder / f"{digest}.safetensors"

    def _read(self, text: str) -> Tensor | None:
        path = self._path(text)
        if not path.is_file():
            return None
        try:
            return load_file(path)["vector"]
        except (OSError, KeyError, SafetensorError):  # damaged
            return None

    def _write(self, text: str, vector: Tensor) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self._folder, suffix=".part")
        os.close(handle)
        save_file({"vector": vector.contiguous()}, temporary)
        Path(temporary).replace(self._path(text))
