"""How weights move: AdamW, its learning rate over a run, and the average that becomes the model."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from dsmoe_core.config import TrainingConfig


def adamw(network: nn.Module, training: TrainingConfig) -> torch.optim.AdamW:
    """AdamW over what learns; norms, biases and scalars do not decay."""
    learning = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learning if p.ndim > 1], "weight_decay": training.weight_decay},
        {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=training.learning_rate)


def set_rate(optimizer: torch.optim.Optimizer, training: TrainingConfig, share: float) -> float:
    """Set the learning rate for after this share of the run, and return it."""
    rate = training.learning_rate * schedule(share, training.warmup)
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


def schedule(share: float, warmup: float) -> float:
    """Factor on the learning rate: linear up, then a cosine down to a hundredth."""
    if share < warmup:
        return (share + 1e-3) / (warmup + 1e-3)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (share - warmup) / (1 - warmup)))


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Exponential moving average of weights and statistics, quick at the start."""
    keep = min(decay, (1 + step) / (10 + step))
    for mean, now in zip(_state(average), _state(network), strict=True):
        if mean.dtype.is_floating_point:
            mean.lerp_(now.to(mean.dtype), 1 - keep)
        else:
            mean.copy_(now)


def _state(network: nn.Module) -> Iterator[Tensor]:
    yield from network.parameters()
    yield from network.buffers()
