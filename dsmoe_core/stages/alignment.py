"""Stage 5: hyperbolic manifold alignment in the Poincare ball D^n (eq. 9-13).

1. exponential map ``P(v_i) = Exp_0(v_i)``
2. semantic anchoring ``t^_i = Proj(W_h T^_i)``
3. geometric fusion ``g_i = Log_0(P(v_i)) + beta Log_{t^_i}(P(v_i))``, beta learnable

Paper: v_i is "the i-th visual feature vector", yet G holds one fused vector per class. We: v_i is the visual
descriptor of class i, F_cs pooled by the attention of T^_i over positions. The same class-position affinity,
normalised over the classes and one empty class instead of over positions, later spreads class vectors over
space (stages 6 and 9).

Everything in the ball is fp32, whatever the autocast.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dsmoe_core import poincare
from dsmoe_core.outputs import AlignmentOutput


class HyperbolicAlignment(nn.Module):
    """Visual descriptors and class anchors meet in the ball.

    Args:
        width: channels of F_cs.
        text_width: d_t.
        ball_dim: n.
    """

    def __init__(self, *, width: int, text_width: int, ball_dim: int) -> None:
        super().__init__()
        self.key = nn.Conv2d(width, ball_dim, 1)
        self.query = nn.Linear(text_width, ball_dim, bias=False)
        self.value = nn.Linear(width, ball_dim)
        self.anchor = nn.Linear(text_width, ball_dim, bias=False)
        self.beta = nn.Parameter(torch.tensor(0.5))
        self.nothing = nn.Parameter(torch.tensor(0.0))
        self.sharpness = nn.Parameter(torch.tensor(ball_dim**-0.5))

    def anchors(self, text: Float[Tensor, "c t"]) -> Float[Tensor, "c n"]:
        """t^ = Proj(W_h T^) (eq. 10), for classes or inner nodes of the taxonomy."""
        with torch.autocast(text.device.type, enabled=False):
            return poincare.project(self.anchor(text.float()))

    def forward(self, f_cs: Float[Tensor, "b d h w"], text: Float[Tensor, "c t"]) -> AlignmentOutput:
        """G and its parts, for images ``f_cs`` and class vectors T^."""
        keys = self.key(f_cs).permute(0, 2, 3, 1)
        logits = (keys @ self.query(text).T).float() * self.sharpness
        attention = logits.flatten(1, 2).softmax(dim=1).transpose(1, 2)
        pooled = attention.to(f_cs.dtype) @ f_cs.flatten(2).transpose(1, 2)
        empty = self.nothing.expand(*logits.shape[:3], 1)
        affinity = torch.cat([logits, empty], dim=-1).softmax(-1)[..., :-1]
        with torch.autocast(f_cs.device.type, enabled=False):
            points = poincare.exp0(nn.functional.linear(pooled.float(), self.value.weight, self.value.bias))
            anchors = self.anchors(text)
            from_anchor = poincare.log(anchors.expand_as(points), points)
            fused = poincare.log0(points) + self.beta * from_anchor
            distance = poincare.distance(anchors.expand_as(points), points)
        return AlignmentOutput(fused, anchors, points, distance, affinity)
