"""A network and a text encoder small enough to train within a test."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from dsmoe_core.config import ModelConfig

SMALL = ModelConfig(
    image_px=64,
    text_width=16,
    text_heads=2,
    encoder_widths=(16, 16, 32, 32),
    encoder_heads=(1, 1, 1, 1),
    encoder_windows=(4, 4, 4, 2),
    width=32,
    ball_dim=8,
    experts=4,
    top_k=2,
    head_width=32,
)


class HashEncoder:
    """Texts to random but fixed vectors; counts how often it is asked."""

    name = "hash"
    width = 16

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        self.asked += texts
        seeds = [int.from_bytes(hashlib.sha256(t.encode()).digest()[:4], "big") for t in texts]
        rows = [torch.randn(16, generator=torch.Generator().manual_seed(s)) for s in seeds]
        return torch.stack(rows) if rows else torch.zeros(0, 16)
