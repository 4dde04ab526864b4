"""What all inputs have in common, learned while training and fixed afterwards."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class RunningMean(nn.Module):
    """Takes the mean of all inputs so far off an input.

    Args:
        width: of the vectors.
        momentum: least share of the newest mean; the first ones count alike.
    """

    def __init__(self, width: int, *, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.mean: Tensor
        self.seen: Tensor
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, rows: Float[Tensor, "r w"]) -> Float[Tensor, "r w"]:
        """The rows without what is common to all."""
        return rows - self.mean.to(rows.dtype)

    @torch.no_grad()
    def follow(self, rows: Float[Tensor, "r w"]) -> None:
        """Move the mean towards that of these rows."""
        self.seen += 1
        self.mean.lerp_(rows.mean(0).to(self.mean.dtype), max(1 / float(self.seen), self.momentum))
