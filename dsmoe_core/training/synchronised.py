"""Batch normalisation and running means over the images of all processes, on any device.

torch's own SyncBatchNorm needs a GPU. Here the mean and then the squared deviations from it are summed over
the processes, in the forward and the backward pass. So the statistics equal those of one process with all
images.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from dsmoe_core.running_mean import RunningMean
from dsmoe_core.training.batch_renormalisation import BatchRenorm, correction, update_statistics


class _AllReduceSum(torch.autograd.Function):
    """Sum over all processes; the gradient of a value is the sum of all processes' gradients of the sum."""

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


class SynchronisedBatchNorm(nn.BatchNorm2d):
    """:class:`torch.nn.BatchNorm2d` with training statistics over the batches of all processes."""

    def forward(self, input: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:  # noqa: A002 - torch's name
        """Normalise, and update the running statistics in training mode."""
        if not self.training:
            return super().forward(input)
        x = input.float()
        values = all_reduce_sum(x.new_tensor([x.numel() / x.shape[1]]))
        mean = all_reduce_sum(x.sum((0, 2, 3))) / values
        deviation = x - mean[:, None, None]
        variance = all_reduce_sum(deviation.square().sum((0, 2, 3))) / values
        weight, bias = self._affine(mean.detach(), variance.detach())
        self._update_statistics(mean.detach(), variance.detach() * values / (values - 1))
        scale = weight * torch.rsqrt(variance + self.eps)
        return (deviation * scale[:, None, None] + bias[:, None, None]).to(input.dtype)

    def _affine(self, _mean: Tensor, _variance: Tensor) -> tuple[Tensor, Tensor]:
        """Weight and bias of the normalised values of a batch with these statistics."""
        return self.weight, self.bias

    def _update_statistics(self, mean: Float[Tensor, " d"], variance: Float[Tensor, " d"]) -> None:
        assert self.running_mean is not None  # noqa: S101 - for the type checker
        assert self.running_var is not None  # noqa: S101
        assert self.num_batches_tracked is not None  # noqa: S101
        self.num_batches_tracked += 1
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


class SynchronisedBatchRenorm(SynchronisedBatchNorm):
    """:class:`BatchRenorm` with statistics over the batches of all processes."""

    def _affine(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        ratio, shift = correction(self, mean, variance)
        return self.weight * ratio, self.bias + self.weight * shift

    def _update_statistics(self, mean: Float[Tensor, " d"], variance: Float[Tensor, " d"]) -> None:
        update_statistics(self, mean, variance)


class SynchronisedRunningMean(RunningMean):
    """:class:`RunningMean` over the rows of all processes, each of which has the same number of rows."""

    def update(self, rows: Float[Tensor, "r w"]) -> None:
        """Move the running mean towards the mean of all processes' rows."""
        mean = rows.detach().float().mean(0, keepdim=True)
        dist.all_reduce(mean)
        super().update(mean / dist.get_world_size())


def all_reduce_sum(value: Tensor) -> Tensor:
    """Return the sum over all processes, with gradients."""
    total: Tensor = _AllReduceSum.apply(value)  # type: ignore[no-untyped-call]
    return total


def synchronise(network: nn.Module) -> None:
    """Replace every batch normalisation and running mean by its synchronised form.

    Weights, statistics and state-dict names stay the same.
    """
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                kind = SynchronisedBatchRenorm if isinstance(child, BatchRenorm) else SynchronisedBatchNorm
                norm = kind(child.num_features, child.eps, child.momentum)
                module.register_module(name, _copy_state(norm, child))
            elif isinstance(child, RunningMean):
                mean = SynchronisedRunningMean(len(child.mean), momentum=child.momentum)
                module.register_module(name, _copy_state(mean, child))


def _copy_state(new: nn.Module, old: nn.Module) -> nn.Module:
    new.load_state_dict(old.state_dict())
    device = next(iter(old.state_dict().values())).device
    return new.to(device).train(old.training)
