"""Batch renormalisation: normalises with the statistics that the trained network uses (Ioffe 2017).

In a training on several sets each batch is of one set. With batch normalisation every set is then normalised
by its own statistics, but the trained network has only one running mean and variance for all sets, so it
does not fit any of them. Batch renormalisation corrects the output of batch normalisation to the running
statistics:

    y = weight * ((x - mean) / std * r + d) + bias
    r = std / running_std
    d = (mean - running_mean) / running_std

r and d are constants in the backward pass. Source: Ioffe, "Batch Renormalization: Towards Reducing Minibatch
Dependence in Batch-Normalized Models", 2017, algorithm 1.

Paper: r and d are clipped to limits that rise in the first tenth of a long training. We: both rise with one
exponent from no to full correction in ``RAMP`` batches after ``WARM_UP``, and r has no lower limit, because
images of low contrast are to keep their small values.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

WARM_UP, RAMP = 40, 120
"""Batches without correction, and batches until it is complete."""
MAX_RATIO, MAX_SHIFT = 3.0, 5.0
"""Largest r, and largest absolute value of d (Ioffe 2017, section 4)."""
MOMENTUM = 0.03
"""Weight of a batch in the running statistics; low, so that they are of all sets."""


def correction(
    norm: nn.BatchNorm2d, mean: Float[Tensor, " d"], variance: Float[Tensor, " d"]
) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    """Compute r and d for a batch, before its statistics enter the running ones.

    Args:
        mean, variance: of the batch; the variance is divided by the number of values.
    """
    assert norm.running_mean is not None  # noqa: S101 - for the type checker
    assert norm.running_var is not None  # noqa: S101
    assert norm.num_batches_tracked is not None  # noqa: S101
    strength = ((norm.num_batches_tracked - WARM_UP) / RAMP).clamp(0, 1)
    running_std = (norm.running_var + norm.eps).sqrt()
    ratio = ((variance + norm.eps).sqrt() / running_std) ** strength
    shift = (mean - norm.running_mean) / running_std * strength
    return ratio.clamp(max=MAX_RATIO), shift.clamp(-MAX_SHIFT, MAX_SHIFT)


@torch.no_grad()
def update_statistics(norm: nn.BatchNorm2d, mean: Float[Tensor, " d"], variance: Float[Tensor, " d"]) -> None:
    """Move the running mean and variance towards those of a batch; the first batches have equal weights."""
    assert norm.running_mean is not None  # noqa: S101 - for the type checker
    assert norm.running_var is not None  # noqa: S101
    assert norm.num_batches_tracked is not None  # noqa: S101
    norm.num_batches_tracked += 1
    momentum = max(1 / float(norm.num_batches_tracked), norm.momentum or 0.0)
    norm.running_mean.lerp_(mean, momentum)
    norm.running_var.lerp_(variance, momentum)


class BatchRenorm(nn.BatchNorm2d):
    """:class:`torch.nn.BatchNorm2d` whose training output follows its running statistics.

    Args:
        features: number of channels.
        momentum: lowest weight of a batch in the running statistics; the first batches have equal weights.
    """

    def __init__(self, features: int, eps: float = 1e-5, momentum: float = MOMENTUM) -> None:
        super().__init__(features, eps, momentum)

    def forward(self, input: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:  # noqa: A002 - torch's name
        """Normalise, and update the running statistics in training mode."""
        if not self.training:
            return super().forward(input)
        with torch.no_grad():
            variance, mean = torch.var_mean(input.float(), (0, 2, 3), correction=0)
            ratio, shift = correction(self, mean, variance)
            values = input.numel() / input.shape[1]
            update_statistics(self, mean, variance * values / max(values - 1, 1))
        weight, bias = self.weight * ratio, self.bias + self.weight * shift
        return F.batch_norm(input, None, None, weight, bias, training=True, eps=self.eps)


def renormalise(network: nn.Module) -> None:
    """Replace every batch normalisation by batch renormalisation; weights and their names stay the same."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                norm = BatchRenorm(child.num_features, child.eps)
                norm.load_state_dict(child.state_dict())
                module.register_module(name, norm.to(child.weight.device).train(child.training))
