"""Muon: AdamW whose matrices move along their orthogonalised momentum.

After Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024): what a matrix has
learned, the running mean of its gradients, is replaced by the nearest matrix with all singular values alike,
so that directions with small gradients are learned as fast as the loud ones. A convolution is the matrix of
its output channels by everything that one of them reads. ``torch.optim.Muon`` has the same rule for plain
matrices only, and most weights here are convolutions.

Its rate is a multiple of AdamW's, so that one number and one schedule move everything.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

MOMENTUM = 0.95
LARGE = 256
"""Rows and columns from which on a matrix is large: below, bf16 was the slower one on two cores."""
STEPS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration: singular values of 0.01 to 1 end between 0.7 and 1.2."""


class Muon(torch.optim.AdamW):
    """AdamW, but for groups with ``matrix_rate``: weights of two dimensions or four, whose rate is so many
    times ``lr``.

    Matrices keep their momentum as ``exp_avg``, under the name that AdamW has for it.

    Args:
        groups: of weights, as AdamW takes them.
        large_in: type that the matrices nearest to large ones are found in; they are rough in any.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], *, large_in: torch.dtype = torch.float32) -> None:
        super().__init__(groups)
        self._large_in = large_in

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move all weights that have a gradient; matrices have none left afterwards."""
        for group in self.param_groups:
            if group.get("matrix_rate"):
                self._move([w for w in group["params"] if w.grad is not None], group)
        return super().step(closure)

    def _move(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        """Those of one shape at once: they are many and small."""
        alike = defaultdict(list)
        for weight in weights:
            alike[weight.flatten(1).shape].append(weight)
        for (rows, columns), some in alike.items():
            means = torch.stack([self._momentum(w).flatten(1) for w in some])
            if min(rows, columns) >= LARGE:
                means = means.to(self._large_in)
            moved = orthogonal(means)
            rate = group["lr"] * group["matrix_rate"] * max(1.0, rows / columns) ** 0.5
            for weight, step in zip(some, moved, strict=True):
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.sub_(step.view(weight.shape), alpha=rate)

    def _momentum(self, weight: Tensor) -> Tensor:
        """Nesterov's: the running mean of the gradients, a step ahead."""
        state, gradient = self.state[weight], weight.grad
        assert gradient is not None  # noqa: S101 - chosen for having one
        weight.grad = None  # so that AdamW leaves the weight alone
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(weight)
        state["step"] += 1
        mean = state["exp_avg"].lerp_(gradient, 1 - MOMENTUM)
        return torch.lerp(gradient, mean, MOMENTUM)


def orthogonal(matrices: Float[Tensor, "m r c"]) -> Float[Tensor, "m r c"]:
    """About the nearest matrices with singular values of one, by a Newton-Schulz iteration.

    All zeros stay so.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    wide = matrices.mT if tall else matrices
    x: Tensor = wide / (wide.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
