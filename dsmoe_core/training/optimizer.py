"""How weights move: the optimizer, its learning rate over a run, and the average that becomes the model."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from dsmoe_core.config import TrainingConfig
from dsmoe_core.stages.distillation import SemanticDistillation
from dsmoe_core.stages.head import Head
from dsmoe_core.stages.text_prompt import TextPrompt
from dsmoe_core.training.muon import Muon

MATRIX = 16
"""Rows and columns from which on a weight is a matrix to Muon; a depthwise kernel is none."""


def build_optimizer(network: nn.Module, training: TrainingConfig) -> Muon:
    """Muon over what learns; norms, biases and scalars do not decay.

    What places the classes, stages 1 and 2 and the head's projection of them, moves at ``text_rate``: every
    cell learns towards these vectors, and learns no class while they run away.
    """
    words = set(_placing_words(network))
    groups: dict[tuple[bool, bool, bool], list[nn.Parameter]] = defaultdict(list)
    for weight in network.parameters():
        if weight.requires_grad:
            matrix = bool(training.matrix_rate) and weight not in words and _is_matrix(weight)
            groups[weight.ndim > 1, weight in words, matrix].append(weight)
    return Muon(
        (
            {
                "params": weights,
                "weight_decay": training.weight_decay if decays else 0.0,
                "rate": training.text_rate if of_words else 1.0,
                "matrix_rate": training.matrix_rate if matrix else 0.0,
                "fused": True,  # hundreds of small weights
            }
            for (decays, of_words, matrix), weights in groups.items()
        ),
        large_in=torch.bfloat16 if training.precision == "bf16-mixed" else torch.float32,
    )


def _placing_words(network: nn.Module) -> Iterator[nn.Parameter]:
    for module in network.modules():
        if isinstance(module, TextPrompt | SemanticDistillation):
            yield from module.parameters()
        elif isinstance(module, Head):
            yield from module.words.parameters()


def _is_matrix(weight: nn.Parameter) -> bool:
    return weight.ndim in (2, 4) and min(weight.flatten(1).shape) >= MATRIX


def set_learning_rate(optimizer: torch.optim.Optimizer, training: TrainingConfig, share: float) -> float:
    """Set the learning rate for after this share of the run, and return it."""
    rate = training.learning_rate * schedule(share, training.warmup)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate"]
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
