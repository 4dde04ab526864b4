"""Optimizer with its parameter groups, and moving average of the weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from dsmoe_core.config import TrainingConfig
from dsmoe_core.stages.distillation import SemanticDistillation
from dsmoe_core.stages.experts import CrossModalExperts
from dsmoe_core.stages.head import Head
from dsmoe_core.stages.image_encoder import ImageEncoder
from dsmoe_core.stages.resnet_encoder import ResNetEncoder
from dsmoe_core.stages.text_prompt import TextPrompt
from dsmoe_core.training.muon import Muon
from dsmoe_core.training.precision import training_precision

MIN_MATRIX_SIDE = 16
"""Minimum rows and columns of a weight that Muon treats as a matrix; excludes depthwise kernels."""


def build_optimizer(network: nn.Module, training: TrainingConfig) -> Muon:
    """Build Muon over the trainable weights; norms, biases and scalars have no weight decay.

    Stages 1 and 2 and the head's text projection learn at ``text_rate``. They place the classes that every
    cell learns towards, and no class is learned while these move quickly. The backbone of the image encoder
    learns at ``backbone_lr_factor``.
    """
    text_weights, norms = set(_text_weights(network)), set(_stacked_norms(network))
    rates = dict.fromkeys(_backbone_weights(network), training.backbone_lr_factor)
    rates |= dict.fromkeys(text_weights, training.text_rate)
    groups: dict[tuple[bool, float, bool], list[nn.Parameter]] = defaultdict(list)
    for weight in network.parameters():
        if weight.requires_grad:
            matrix = bool(training.matrix_rate) and weight not in text_weights and _is_matrix(weight)
            decays = weight.ndim > 1 and weight not in norms
            groups[decays, rates.get(weight, 1.0), matrix].append(weight)
    return Muon(
        (
            {
                "params": weights,
                "weight_decay": training.weight_decay if decays else 0.0,
                "rate": rate,
                "matrix_rate": training.matrix_rate if matrix else 0.0,
                "fused": True,  # faster for hundreds of small weights
            }
            for (decays, rate, matrix), weights in groups.items()
        ),
        large_dtype=torch.bfloat16 if training_precision(training) == "bf16-mixed" else torch.float32,
    )


def _text_weights(network: nn.Module) -> Iterator[nn.Parameter]:
    for module in network.modules():
        if isinstance(module, TextPrompt | SemanticDistillation):
            yield from module.parameters()
        elif isinstance(module, Head):
            yield from module.text_projection.parameters()


def _backbone_weights(network: nn.Module) -> Iterator[nn.Parameter]:
    for module in network.modules():
        if isinstance(module, ImageEncoder | ResNetEncoder):
            yield from module.backbone.parameters()


def _stacked_norms(network: nn.Module) -> Iterator[nn.Parameter]:
    """Norm parameters that have one row per expert, hence several dimensions."""
    for module in network.modules():
        if isinstance(module, CrossModalExperts):
            yield from (module.scale, module.shift)


def _is_matrix(weight: nn.Parameter) -> bool:
    if weight.ndim == 3:  # a matrix per expert
        return min(weight.shape[1:]) >= MIN_MATRIX_SIDE
    return weight.ndim in (2, 4) and min(weight.flatten(1).shape) >= MIN_MATRIX_SIDE


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> float:
    """Set the learning rate, times the rate of each group, and return it."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate"]
    return rate


class WeightAverage:
    """Exponential moving average of a network's weights and buffers.

    Args:
        average: copy of the network that holds the average.
        network: the network that is trained.
        decay: share of the average that a step keeps; smaller in early steps.
    """

    def __init__(self, average: nn.Module, network: nn.Module, decay: float) -> None:
        self._decay = decay
        pairs = list(zip(_state(average), _state(network), strict=True))
        self._means, self._values = _unzip(p for p in pairs if p[0].dtype.is_floating_point)
        self._copies, self._originals = _unzip(p for p in pairs if not p[0].dtype.is_floating_point)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Include the network's values after this step, counted from 1; integers are copied."""
        keep = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._means, self._values, 1 - keep)
        if self._copies:
            torch._foreach_copy_(self._copies, self._originals)


def _unzip(pairs: Iterator[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    both = list(pairs)
    return [first for first, _ in both], [second for _, second in both]


def _state(network: nn.Module) -> Iterator[Tensor]:
    yield from network.parameters()
    yield from network.buffers()
