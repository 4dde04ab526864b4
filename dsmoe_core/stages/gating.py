"""Stage 7: attention-driven gating, ``w_i = softmax_i(<phi(F_b), psi(T^_i)> / tau)`` (eq. 20), top-k per
picture.

``phi(F_b) = GAP(W_phi F_b)`` and ``psi(T^_i) = W_psi T^_i``, projectors with two hidden layers of 128; tau is
learnable from 0.1.

Paper: "T^_i is the class-specific text embedding for expert i", yet N_e = 32 is not C. We: every expert has
a learned query that attends over T^, so classes come and go without touching the experts. The inner product
is taken between unit vectors, since at tau = 0.1 a free one saturates the softmax at once; the letter is
``unit=False``. The chosen weights are made to sum to one, so that the scale of F_MoE does not depend on k;
the letter is ``share=False``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dsmoe_core.signals import Gated


class AttentionGating(nn.Module):
    """The router.

    Args:
        width: channels of F_b.
        text_width: d_t.
        experts: N_e.
        top_k: k.
        unit: compare vectors of length one.
        share: make the chosen weights sum to one.
        hidden: of the projectors.
    """

    def __init__(
        self,
        *,
        width: int,
        text_width: int,
        experts: int,
        top_k: int,
        unit: bool = True,
        share: bool = True,
        hidden: int = 128,
    ) -> None:
        super().__init__()
        self.top_k, self.unit, self.share = top_k, unit, share
        self.queries = nn.Parameter(torch.randn(experts, text_width))
        self.image = nn.Sequential(
            nn.Conv2d(width, hidden, 1),
            nn.SiLU(),
            nn.Conv2d(hidden, hidden, 1),
            nn.SiLU(),
            nn.Conv2d(hidden, 64, 1),
        )
        self.text = nn.Sequential(
            nn.Linear(2 * text_width, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, 64),
        )
        self.log_tau = nn.Parameter(torch.tensor(0.1).log())

    def forward(self, f_b: Float[Tensor, "b d h w"], text: Float[Tensor, "c t"]) -> Gated:
        """Chosen experts, best first, with weights that sum to one."""
        attention = (self.queries @ text.T / text.shape[-1] ** 0.5).softmax(-1)
        expert_text = attention @ text
        picture = self.image(f_b).mean((2, 3))
        expert = self.text(torch.cat([expert_text, self.queries], dim=-1))
        with torch.autocast(f_b.device.type, enabled=False):  # small differences decide who is chosen
            picture, expert = picture.float(), expert.float()
            if self.unit:
                picture, expert = F.normalize(picture, dim=-1), F.normalize(expert, dim=-1)
            probabilities = (picture @ expert.T / self.log_tau.exp()).softmax(-1)
        weights, chosen = probabilities.topk(self.top_k, dim=-1)
        if self.share:
            weights = weights / weights.sum(-1, keepdim=True)
        return Gated(chosen, weights, probabilities, expert_text)
