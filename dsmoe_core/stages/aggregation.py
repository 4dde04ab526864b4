"""Stage 10: differentiable aggregation, ``F_out = Conv1x1(F_e . sigmoid(W_a F_MoE)) + F_MoE`` (eq. 26-27).

Paper: eq. 26 has no residual, so F_MoE only scales the channels of F_e, and the experts get hardly any
gradient: without them the trained network lost nothing. We: add F_MoE. The literal form is ``gate_only``.

Auxiliary loss: ``L_align = mean_ij cos(grad_{F_e} F_out^ij, grad_{F_MoE} F_out^ij)``.

Paper: calls it a gradient alignment constraint, although minimising the cosine drives the gradients apart.
We: minimise ``1 - cos``; the literal form is ``minimise_cosine``.

Paper: F_out^ij has a channel axis, which is not mentioned. We: take the product of the channels with a random
unit vector, another one in every step. A single fixed combination, such as the sum, can be aligned while
others are not.

Paper: per-position gradients, which cost one backward pass each with autograd. We: use the closed form. With
r the unit vector, w = r W the combination of the rows of the 1 x 1 kernel W, and s = sigmoid(W_a F_MoE), the
gradients are ``grad_{F_e} = w . s`` and ``grad_{F_MoE} = W_a^T (w . F_e . s (1 - s)) + r``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dsmoe_core.outputs import AggregationOutput

ROUNDING = 1e-3


class Aggregation(nn.Module):
    """Gates the ensemble features F_e by the mixture features F_MoE, projects the result and adds F_MoE.

    Args:
        width: channels of F_e and of F_MoE. F_out has floor((C_e + C_m) / 2) channels, hence the same number.
        gate_only: do not add F_MoE.
        minimise_cosine: use the cosine itself as the loss.

    Attributes:
        batch_fraction: share of the training batch that the next forward pass processes; the combination of
            the channels changes after a whole batch.
    """

    def __init__(self, *, width: int, gate_only: bool = False, minimise_cosine: bool = False) -> None:
        super().__init__()
        self.gate_only, self.minimise_cosine = gate_only, minimise_cosine
        self.gate = nn.Conv2d(width, width, 1, bias=False)
        self.project = nn.Conv2d(width, width, 1)
        self.combinations: Tensor
        self.turn: Tensor
        self.register_buffer("combinations", torch.linalg.qr(torch.randn(width, width))[0])
        self.register_buffer("turn", torch.zeros(()))
        self.batch_fraction = 1.0

    def forward(self, f_e: Float[Tensor, "b d h w"], f_moe: Float[Tensor, "b d h w"]) -> AggregationOutput:
        """Compute F_out and, in training mode, the loss averaged over images and positions (else 0)."""
        gate = torch.sigmoid(self.gate(f_moe))
        out = self.project(f_e * gate)
        if not self.gate_only:
            out = out + f_moe
        loss = self._misalignment(f_e, gate) if self.training else f_e.new_zeros(())
        return AggregationOutput(out, loss)

    def _misalignment(
        self, f_e: Float[Tensor, "b d h w"], gate: Float[Tensor, "b d h w"]
    ) -> Float[Tensor, ""]:
        count = len(self.combinations)
        row = (self.turn + ROUNDING).long().remainder(count)  # the sum of fractions may be just below 1
        combination = self.combinations.index_select(0, row[None])[..., None, None].to(gate.dtype)
        self.turn.add_(self.batch_fraction).remainder_(count)
        rows = F.conv_transpose2d(combination, self.project.weight.to(gate.dtype))
        grad_e = rows * gate
        grad_moe = F.conv_transpose2d(rows * f_e * gate * (1 - gate), self.gate.weight.to(gate.dtype))
        if not self.gate_only:
            grad_moe = grad_moe + combination
        cosine = F.cosine_similarity(grad_e.float(), grad_moe.float(), dim=1)
        return (cosine if self.minimise_cosine else 1 - cosine).mean()
