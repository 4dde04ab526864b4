"""Stage 10: differentiable aggregation, ``F_out = Conv1x1(F_e . sigmoid(W_a F_MoE))`` (eq. 26-27).

Auxiliary loss: ``L_align = mean_ij cos(grad_{F_e} F_out^ij, grad_{F_MoE} F_out^ij)``.

Paper: calls it a gradient alignment constraint, although minimising the cosine drives the gradients apart.
We: minimise ``1 - cos``; the literal form is ``minimise_cosine``.

Paper: per-position gradients, which cost one backward pass each with autograd. We: take F_out^ij as the sum
over the output channels at position ij. With w the column sums of the 1 x 1 kernel and
s = sigmoid(W_a F_MoE), the gradients have the closed form ``grad_{F_e} = w . s`` and
``grad_{F_MoE} = W_a^T (w . F_e . s (1 - s))``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dsmoe_core.outputs import AggregationOutput


class Aggregation(nn.Module):
    """Gates the ensemble features F_e by the mixture features F_MoE and projects the result.

    Args:
        width: channels of F_e and of F_MoE. F_out has floor((C_e + C_m) / 2) channels, hence the same number.
        minimise_cosine: use the cosine itself as the loss.
    """

    def __init__(self, *, width: int, minimise_cosine: bool = False) -> None:
        super().__init__()
        self.minimise_cosine = minimise_cosine
        self.gate = nn.Conv2d(width, width, 1, bias=False)
        self.project = nn.Conv2d(width, width, 1)

    def forward(self, f_e: Float[Tensor, "b d h w"], f_moe: Float[Tensor, "b d h w"]) -> AggregationOutput:
        """Compute F_out and, in training mode, the loss averaged over images and positions (else 0)."""
        gate = torch.sigmoid(self.gate(f_moe))
        loss = self._misalignment(f_e, gate) if self.training else f_e.new_zeros(())
        return AggregationOutput(self.project(f_e * gate), loss)

    def _misalignment(
        self, f_e: Float[Tensor, "b d h w"], gate: Float[Tensor, "b d h w"]
    ) -> Float[Tensor, ""]:
        column_sums = self.project.weight.sum(0)[None].to(gate.dtype)
        grad_e = column_sums * gate
        grad_moe = F.conv_transpose2d(column_sums * f_e * gate * (1 - gate), self.gate.weight.to(gate.dtype))
        cosine = F.cosine_similarity(grad_e.float(), grad_moe.float(), dim=1)
        return (cosine if self.minimise_cosine else 1 - cosine).mean()
