"""What looks from image to image looks at those of all processes, on any device: norms and running means.

torch's own SyncBatchNorm wants a GPU. Here the mean and then the squared distances from it are summed over
the processes, forwards and backwards, so that the statistics are those of one process with all images.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from dsmoe_core.running_mean import RunningMean


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


class SynchronisedMean(RunningMean):
    """As :class:`RunningMean`, of the rows of all processes; each has as many."""

    def follow(self, rows: Float[Tensor, "r w"]) -> None:
        """Move the mean towards that of all processes' rows."""
        mean = rows.detach().float().mean(0, keepdim=True)
        dist.all_reduce(mean)
        super().follow(mean / dist.get_world_size())


def _summed(value: Tensor) -> Tensor:
    summed: Tensor = _Summed.apply(value)  # type: ignore[no-untyped-call]
    return summed


def synchronise(network: nn.Module) -> None:
    """Replace every batch normalisation and running mean; weights, statistics and names stay."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                norm = SynchronisedNorm(child.num_features, child.eps, child.momentum)
                module.register_module(name, _like(norm, child))
            elif isinstance(child, RunningMean):
                mean = SynchronisedMean(len(child.mean), momentum=child.momentum)
                module.register_module(name, _like(mean, child))


def _like(new: nn.Module, old: nn.Module) -> nn.Module:
    new.load_state_dict(old.state_dict())
    device = next(iter(old.state_dict().values())).device
    return new.to(device).train(old.training)
