"""Running mean of training inputs, subtracted from every input."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class RunningMean(nn.Module):
    """Centres vectors by a mean that is updated in training and fixed afterwards.

    Args:
        width: width of the vectors.
        momentum: minimum weight of the newest batch mean. The first batches are averaged with equal weights.
    """

    def __init__(self, width: int, *, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.mean: Tensor
        self.updates: Tensor
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("updates", torch.zeros(()))

    def forward(self, rows: Float[Tensor, "*r w"]) -> Float[Tensor, "*r w"]:
        """Subtract the running mean."""
        return rows - self.mean.to(rows.dtype)

    @torch.no_grad()
    def update(self, rows: Float[Tensor, "r w"]) -> None:
        """Move the running mean towards the mean of these rows."""
        self.updates += 1
        self.mean.lerp_(rows.mean(0).to(self.mean.dtype), max(1 / float(self.updates), self.momentum))
