"""Stage 10: differentiable aggregation, ``F_out = Conv1x1(F_e . sigmoid(W_a F_MoE))`` (eq. 26-27).

``L_align = mean_ij cos(grad_{F_e} F_out^ij, grad_{F_MoE} F_out^ij)`` is called a gradient alignment
constraint, so the loss is ``1 - cos``; the letter, ``minimise_cosine``, drives the two apart. Per-position
gradients by autograd cost a backward pass each. We: take F_out^ij as the sum over the output channels at
position ij; with w the column sums of the 1 x 1 kernel and s = sigmoid(W_a F_MoE), in closed form
``grad_{F_e} = w . s`` and ``grad_{F_MoE} = W_a^T (w . F_e . s (1 - s))``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dsmoe_core.outputs import AggregationOutput


class Aggregation(nn.Module):
    """The gate of the mixture on the ensemble.

    Args:
        width: channels of F_e and of F_MoE; F_out has floor((C_e + C_m) / 2), the same.
        minimise_cosine: the loss is the cosine itself.
    """

    def __init__(self, *, width: int, minimise_cosine: bool = False) -> None:
        super().__init__()
        self.minimise_cosine = minimise_cosine
        self.attend = nn.Conv2d(width, width, 1, bias=False)
        self.point = nn.Conv2d(width, width, 1)

    def forward(self, f_e: Float[Tensor, "b d h w"], f_moe: Float[Tensor, "b d h w"]) -> AggregationOutput:
        """F_out, and the loss averaged over images and positions."""
        gate = torch.sigmoid(self.attend(f_moe))
        loss = self._misalignment(f_e, gate) if self.training else f_e.new_zeros(())
        return AggregationOutput(self.point(f_e * gate), loss)

    def _misalignment(
        self, f_e: Float[Tensor, "b d h w"], gate: Float[Tensor, "b d h w"]
    ) -> Float[Tensor, ""]:
        column = self.point.weight.sum(0)[None].to(gate.dtype)
        by_ensemble = column * gate
        by_mixture = F.conv_transpose2d(column * f_e * gate * (1 - gate), self.attend.weight.to(gate.dtype))
        cosine = F.cosine_similarity(by_ensemble.float(), by_mixture.float(), dim=1)
        return (cosine if self.minimise_cosine else 1 - cosine).mean()
