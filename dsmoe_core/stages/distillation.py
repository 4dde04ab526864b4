"""Stage 2: semantic distillation, ``T^ = LayerNorm(T + MHA(T, T, T))`` (eq. 2), 8 heads.

The text also asks for "value vector orthogonalisation that minimises feature-space overlap". We: an
auxiliary loss, the mean square of the off-diagonal cosines between the classes' value vectors.

Inner nodes of the taxonomy are read in the same way, but the leaf classes alone are attended to, so that the
detector's answer does not hang on how deep somebody drew the tree.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dsmoe_core.outputs import DistillationOutput


class SemanticDistillation(nn.Module):
    """Self-attention over the class vectors.

    Args:
        width: d_t.
        heads: h; divides the width.
    """

    def __init__(self, *, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm = nn.LayerNorm(width)
        nn.init.zeros_(self.attention.out_proj.weight)

    def forward(self, text: Float[Tensor, "q t"], classes: Float[Tensor, "c t"]) -> DistillationOutput:
        """T^ for ``text``, attending over ``classes`` (the same tensor, for the classes themselves)."""
        mixed, _ = self.attention(text[None], classes[None], classes[None], need_weights=False)
        return DistillationOutput(self.norm(text + mixed[0]), self._value_overlap(classes))

    def _value_overlap(self, classes: Float[Tensor, "c t"]) -> Float[Tensor, ""]:
        width = classes.shape[-1]
        weight, bias = self.attention.in_proj_weight[2 * width :], self.attention.in_proj_bias[2 * width :]
        values = nn.functional.normalize(nn.functional.linear(classes, weight, bias).float(), dim=-1)
        gram = values @ values.T
        off_diagonal = gram - torch.diag_embed(gram.diagonal())
        pairs = max(len(classes) * (len(classes) - 1), 1)
        return off_diagonal.square().sum() / pairs
