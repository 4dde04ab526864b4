"""A text encoder that never encodes a text twice: what was seen lies in a folder."""

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
"""Stands for no text: the file of this name holds the width."""


class CachedTextEncoder:
    """Keeps every vector in a folder, one file per (encoder, text) hash; torn files are made anew.

    Args:
        encoder: asked only for texts that were not seen before.
        folder: made if missing.
    """

    def __init__(self, encoder: TextEncoder, folder: Path) -> None:
        self._encoder = encoder
        self._folder = folder

    @property
    def name(self) -> str:
        return self._encoder.name

    @cached_property
    def width(self) -> int:
        """Kept like a vector, so that a server that knows it need not run for texts that were seen before."""
        kept = self._read(_WIDTH)
        if kept is None:
            kept = torch.tensor([self._encoder.width])
            self._write(_WIDTH, kept)
        return int(kept)

    def encode(self, texts: Sequence[str]) -> Float[Tensor, "t w"]:
        """One vector a text, in order.

        Raises:
            ModelError: the encoder's vectors are no longer as wide as those of the same name in the folder.
        """
        known = {text: self._read(text) for text in dict.fromkeys(texts)}
        missing = [text for text, vector in known.items() if vector is None]
        if missing:
            fresh = self._encoder.encode(missing)
            if fresh.shape[1] != self.width:
                raise ModelError(
                    f"text encoder {self.name} is {fresh.shape[1]} wide now; before it was {self.width}",
                    f"If it was changed, empty {self._folder} and train anew.",
                )
            for text, vector in zip(missing, fresh, strict=True):
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
        except (OSError, KeyError, SafetensorError):  # torn
            return None

    def _write(self, text: str, vector: Tensor) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self._folder, suffix=".part")
        os.close(handle)
        save_file({"vector": vector.contiguous()}, temporary)
        Path(temporary).replace(self._path(text))
