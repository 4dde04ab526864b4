"""Small network, text encoder and training for tests."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from dsmoe_core.config import ModelConfig, TrainingConfig
from dsmoe_core.schema import LabelledImage, Vocabulary
from dsmoe_core.train import TrainingSummary, fit

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
    head_strides=(8, 16),
    head_width=32,
)


class HashEncoder:
    """Text encoder that returns a fixed random vector per text and records the texts in ``encoded_texts``."""

    name = "hash"
    width = 16

    def __init__(self) -> None:
        self.encoded_texts: list[str] = []

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        self.encoded_texts += texts
        seeds = [int.from_bytes(hashlib.sha256(t.encode()).digest()[:4], "big") for t in texts]
        rows = [torch.randn(16, generator=torch.Generator().manual_seed(s)) for s in seeds]
        return torch.stack(rows) if rows else torch.zeros(0, 16)


QUICK = TrainingConfig(images_seen=12, batch=2, precision="32-true", checkpoint_every_s=1e-9)
"""Training of six steps, with a checkpoint after each."""


class Killed(BaseException):
    """Simulated kill; a BaseException, so that no handler catches it."""


def train(
    out: Path,
    images: list[LabelledImage],
    vocabulary: Vocabulary,
    *,
    training: TrainingConfig = QUICK,
    kill_at: int | None = None,
    model: ModelConfig = SMALL,
    **others: Any,
) -> TrainingSummary:
    """Train the small detector; raise :class:`Killed` after step ``kill_at``, before its checkpoint."""

    def progress(step: int, steps: int, metrics: dict[str, float]) -> None:
        if step == kill_at:
            raise Killed

    return fit(
        images=images,
        vocabulary=vocabulary,
        text_encoder=HashEncoder(),
        model=model,
        training=training,
        out=out,
        **{"progress": progress, **others},
    )
