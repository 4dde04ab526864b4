"""Muon: AdamW in which matrices move along their orthogonalised momentum.

After Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024): the running mean of a
matrix's gradients is replaced by the nearest matrix whose singular values are all equal, so that directions
with small gradients are learned as fast as those with large ones. A convolution counts as the matrix of its
output channels by its inputs per output channel. ``torch.optim.Muon`` supports plain matrices only, and most
weights here are convolutions.

The learning rate of matrices is a multiple of AdamW's, so that one value and one schedule control both.
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
"""Minimum rows and columns of a large matrix; smaller ones were slower in bf16 on two cores."""
ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration: singular values from 0.01 to 1 end between 0.7 and 1.2."""


class Muon(torch.optim.AdamW):
    """AdamW, with Muon steps for parameter groups that have a ``matrix_rate``.

    Weights of these groups have two or four dimensions, or three for a stack of matrices; their learning rate
    is ``matrix_rate`` times ``lr``. Their momentum is stored as ``exp_avg``, AdamW's name for it.

    Args:
        groups: parameter groups, as AdamW takes them.
        large_dtype: dtype in which large matrices are orthogonalised; the result is approximate in any.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], *, large_dtype: torch.dtype = torch.float32) -> None:
        super().__init__(groups)
        self._large_dtype = large_dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all weights that have a gradient; the gradients of matrices are cleared."""
        for group in self.param_groups:
            if group.get("matrix_rate"):
                self._step_matrices([w for w in group["params"] if w.grad is not None], group)
        return super().step(closure)

    def _step_matrices(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        """Update matrices of the same shape together, because they are many and small."""
        by_shape = defaultdict(list)
        for weight in weights:
            by_shape[weight.shape[1:] if weight.ndim == 3 else weight.flatten(1).shape].append(weight)
        for (rows, columns), matrices in by_shape.items():
            stacks = [self._momentum(w).reshape(-1, rows, columns) for w in matrices]
            momenta = torch.cat(stacks)
            if min(rows, columns) >= LARGE:
                momenta = momenta.to(self._large_dtype)
            steps = orthogonal(momenta)
            rate = group["lr"] * group["matrix_rate"] * max(1.0, rows / columns) ** 0.5
            for weight, step in zip(matrices, torch.split(steps, [len(s) for s in stacks]), strict=True):
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.sub_(step.view(weight.shape), alpha=rate)

    def _momentum(self, weight: Tensor) -> Tensor:
        """Update the running mean of the gradients and return Nesterov's look-ahead of it."""
        state, gradient = self.state[weight], weight.grad
        assert gradient is not None  # noqa: S101 - selected for having one
        weight.grad = None  # so that AdamW skips this weight
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(weight)
        state["step"] += 1
        mean = state["exp_avg"].lerp_(gradient, 1 - MOMENTUM)
        return torch.lerp(gradient, mean, MOMENTUM)


def orthogonal(matrices: Float[Tensor, "m r c"]) -> Float[Tensor, "m r c"]:
    """Approximate the nearest matrices with singular values of one, by a Newton-Schulz iteration.

    Zero matrices stay zero.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    wide = matrices.mT if tall else matrices
    x: Tensor = wide / (wide.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
