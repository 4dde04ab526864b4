"""Batch normalisation over the pictures of all processes, on any device.

torch's own SyncBatchNorm wants a GPU. The mean and then the squared distances from it are summed over the
processes, forwards and backwards, so that the statistics are those of one process with all pictures.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn


class _Summed(torch.autograd.Function):
    """Over all processes; a value's gradient is the sum of what they all make of the sum."""

    @staticmethod
    def forward(_ctx: Any, value: Tensor) -> Tensor:
        value = value.clone()
        dist.all_reduce(value)
        return value

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].clone()
        dist.all_reduce(gradient)
        return gradient


class SynchronisedNorm(nn.BatchNorm2d):
    """As :class:`torch.nn.BatchNorm2d`, with the statistics of all processes' batches while training."""

    def forward(self, input: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:  # noqa: A002 - torch's name
        if not self.training:
            return super().forward(input)
        x = input.float()
        values = _summed(x.new_tensor([x.numel() / x.shape[1]]))
        mean = _summed(x.sum((0, 2, 3))) / values
        apart = x - mean[:, None, None]
        variance = _summed(apart.square().sum((0, 2, 3))) / values
        self._remember(mean.detach(), variance.detach() * values / (values - 1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (apart * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)

    def _remember(self, mean: Float[Tensor, " d"], variance: Float[Tensor, " d"]) -> None:
        assert self.running_mean is not None  # noqa: S101 - for the type checker
        assert self.running_var is not None  # noqa: S101
        assert self.num_batches_tracked is not None  # noqa: S101
        self.num_batches_tracked += 1
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


def _summed(value: Tensor) -> Tensor:
    summed: Tensor = _Summed.apply(value)  # type: ignore[no-untyped-call]
    return summed


def synchronise(network: nn.Module) -> None:
    """Replace every batch normalisation; weights, statistics and names stay."""
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                norm = SynchronisedNorm(child.num_features, child.eps, child.momentum)
                norm.load_state_dict(child.state_dict())
                module.register_module(name, norm.to(child.weight.device))
