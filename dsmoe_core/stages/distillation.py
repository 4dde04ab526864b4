"""Stage 2: semantic distillation, ``T^ = LayerNorm(T + MHA(T, T, T))`` (eq. 2), 8 heads.

Paper: also asks for "value vector orthogonalisation that minimises feature-space overlap". We: an auxiliary
loss, the mean square of the off-diagonal cosines between the value vectors of the classes.

Inner nodes of the taxonomy go through the same layer but attend to the leaf classes only. So the depth of the
taxonomy does not change the detections.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dsmoe_core.outputs import DistillationOutput


class SemanticDistillation(nn.Module):
    """Self-attention over the class embeddings.

    Args:
        width: d_t, width of the class embeddings.
        heads: h, number of attention heads; must divide ``width``.
    """

    def __init__(self, *, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm = nn.LayerNorm(width)
        nn.init.zeros_(self.attention.out_proj.weight)

    def forward(self, text: Float[Tensor, "q t"], classes: Float[Tensor, "c t"]) -> DistillationOutput:
        """Compute T^ of ``text`` by attention over ``classes`` (for the classes: itself)."""
        attended, _ = self.attention(text[None], classes[None], classes[None], need_weights=False)
        return DistillationOutput(self.norm(text + attended[0]), self._value_overlap(classes))

    def _value_overlap(self, classes: Float[Tensor, "c t"]) -> Float[Tensor, ""]:
        width = classes.shape[-1]
        weight, bias = self.attention.in_proj_weight[2 * width :], self.attention.in_proj_bias[2 * width :]
        values = nn.functional.normalize(nn.functional.linear(classes, weight, bias).float(), dim=-1)
        gram = values @ values.T
        off_diagonal = gram - torch.diag_embed(gram.diagonal())
        pairs = max(len(classes) * (len(classes) - 1), 1)
        return off_diagonal.square().sum() / pairs
