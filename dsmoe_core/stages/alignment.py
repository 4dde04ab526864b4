"""Stage 5: hyperbolic manifold alignment in the Poincare ball D^n (eq. 9-11; the losses have eq. 12 and 13).

1. exponential map ``P(v_i) = Exp_0(v_i)`` (eq. 9)
2. semantic anchoring ``t^_i = Proj(W_h T^_i)`` (eq. 10)
3. geometric fusion ``g_i = Log_0(P(v_i)) + beta Log_{t^_i}(P(v_i))`` with a learnable beta (eq. 11)

The paper calls v_i "the i-th visual feature vector", but its result G (all g_i) has one vector per class. So
v_i is a descriptor of class i here: the image features F_cs (stage 4), pooled over the positions with
attention from the class embedding T^_i. This stage normalises that attention over the positions. Stages 6
and 9 reuse its logits to spread class vectors over the image, normalised over the classes and one background
class. The true boxes supervise this class-position affinity (stage_losses.py).

The map from F_cs to the ball has no bias: a bias was learned that was longer than all differences between the
classes, so that their descriptors coincided.

Everything in the ball is computed in fp32, also under autocast.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dsmoe_core import poincare
from dsmoe_core.outputs import AlignmentOutput


class HyperbolicAlignment(nn.Module):
    """Maps visual class descriptors and class embeddings into the Poincare ball and fuses them.

    Args:
        width: channels of F_cs.
        text_width: d_t, width of the class embeddings.
        ball_dim: n, dimension of the ball.
    """

    def __init__(self, *, width: int, text_width: int, ball_dim: int) -> None:
        super().__init__()
        self.key = nn.Conv2d(width, ball_dim, 1)
        self.query = nn.Linear(text_width, ball_dim, bias=False)
        self.value = nn.Linear(width, ball_dim, bias=False)
        self.anchor = nn.Linear(text_width, ball_dim, bias=False)
        self.beta = nn.Parameter(torch.tensor(0.5))
        self.background_logit = nn.Parameter(torch.tensor(0.0))
        self.logit_scale = nn.Parameter(torch.tensor(ball_dim**-0.5))

    def anchors(self, text: Float[Tensor, "c t"]) -> Float[Tensor, "c n"]:
        """Compute t^ = Proj(W_h T^) (eq. 10) for classes or for inner nodes of the taxonomy."""
        with torch.autocast(text.device.type, enabled=False):
            return poincare.project(self.anchor(text.float()))

    def forward(self, f_cs: Float[Tensor, "b d h w"], text: Float[Tensor, "c t"]) -> AlignmentOutput:
        """Compute G and its parts for image features ``f_cs`` and class embeddings T^."""
        keys = self.key(f_cs).permute(0, 2, 3, 1)
        logits = (keys @ self.query(text).T).float() * self.logit_scale
        attention = logits.flatten(1, 2).softmax(dim=1).transpose(1, 2)
        pooled = attention.to(f_cs.dtype) @ f_cs.flatten(2).transpose(1, 2)
        background = self.background_logit.expand(*logits.shape[:3], 1)
        log_affinity = torch.cat([logits, background], dim=-1).log_softmax(-1)
        with torch.autocast(f_cs.device.type, enabled=False):
            points = poincare.exp0(nn.functional.linear(pooled.float(), self.value.weight))
            anchors = self.anchors(text)
            from_anchor = poincare.log(anchors.expand_as(points), points)
            fused = poincare.log0(points) + self.beta * from_anchor
            distance = poincare.distance(anchors.expand_as(points), points)
        return AlignmentOutput(fused, anchors, points, distance, log_affinity)
