"""Stage 7: attention-driven gating, ``w_i = softmax_i(<phi(F_b), psi(T^_i)> / tau)`` (eq. 20), top-k per
image.

``phi(F_b) = GAP(W_phi F_b)`` and ``psi(T^_i) = W_psi T^_i``, projectors with two hidden layers of 128; tau is
learnable from 0.1; elsewhere in the text from 0.07.

Paper: "T^_i is the class-specific text embedding for expert i", yet N_e = 32 is not C. We: every expert has
a learned query that attends over T^, so classes come and go without touching the experts. The letter is
``ask=False``: T^_i, counted again from the first class where there are more experts. The inner product
is taken between unit vectors, since at tau = 0.1 a free one saturates the softmax at once, and what all
images or all experts have in common is taken off them first: the factory's images, and experts that are
read by one projector, otherwise point the same way, every expert gets 1 / N_e of every image, and rounding
chooses. The letter is ``unit=False``. The chosen weights are made to sum to one, so that the scale of F_MoE
does not depend on k; the letter is ``share=False``.

The paper does not say what keeps an expert from never being chosen, and one that is never chosen never
learns. We: a handicap for every expert, which training moves and which counts in the choice alone, not in
the weights (Wang et al. 2024, "Auxiliary-Loss-Free Load Balancing Strategy for Mixture-of-Experts"). A
balance loss as in Switch Transformers is at its least, too, when all experts are the same to every image,
and that is where it led. The letter is ``level=False``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from dsmoe_core.outputs import GatingOutput
from dsmoe_core.running_mean import RunningMean

DESCRIPTOR = 64  # d_g
CENTRE_MOMENTUM = 0.05
LEVELLING = 0.03  # a training of a few hundred steps must do


class AttentionGating(nn.Module):
    """The router.

    Args:
        width: channels of F_b.
        text_width: d_t.
        experts: N_e.
        top_k: k.
        unit: compare vectors of length one.
        share: make the chosen weights sum to one.
        ask: give every expert what its query finds in T^.
        level: handicap the experts that are chosen too often.
        tau: to begin with.
        hidden: of the projectors.

    Attributes:
        batch_fraction: what the next images of a training are of their batch; their part of the levelling.
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
        ask: bool = True,
        level: bool = True,
        tau: float = 0.1,
        hidden: int = 128,
    ) -> None:
        super().__init__()
        self.top_k, self.unit, self.share, self.ask, self.level = top_k, unit, share, ask, level
        self.queries = nn.Parameter(torch.randn(experts, text_width))
        self.image = nn.Sequential(
            nn.Conv2d(width, hidden, 1),
            nn.SiLU(),
            nn.Conv2d(hidden, hidden, 1),
            nn.SiLU(),
            nn.Conv2d(hidden, DESCRIPTOR, 1),
        )
        self.text = nn.Sequential(
            nn.Linear(2 * text_width, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, DESCRIPTOR),
        )
        self.centre = RunningMean(DESCRIPTOR, momentum=CENTRE_MOMENTUM)
        self.log_tau = nn.Parameter(torch.tensor(tau).log())
        self.load_bias: Tensor
        self.register_buffer("load_bias", torch.zeros(experts))
        self.batch_fraction = 1.0

    def forward(self, f_b: Float[Tensor, "b d h w"], text: Float[Tensor, "c t"]) -> GatingOutput:
        """Chosen experts, best first, with weights that sum to one."""
        expert_text = self._texts(text)
        image = self.image(f_b).mean((2, 3))
        expert = self.text(torch.cat([expert_text, self.queries], dim=-1))
        with torch.autocast(f_b.device.type, enabled=False):  # small differences decide who is chosen
            image, expert = image.float(), expert.float()
            if self.unit:
                if self.training:
                    self.centre.follow(image)
                image = F.normalize(self.centre(image), dim=-1)
                expert = F.normalize(expert - expert.mean(0), dim=-1)
            probabilities = (image @ expert.T / self.log_tau.exp()).softmax(-1)
        chosen = (probabilities + self.load_bias).topk(self.top_k, dim=-1).indices
        if self.training and self.level:
            self._level(chosen)
        weights, best_first = probabilities.gather(-1, chosen).sort(-1, descending=True)
        chosen = chosen.gather(-1, best_first)
        if self.share:
            weights = weights / weights.sum(-1, keepdim=True)
        return GatingOutput(chosen, weights, probabilities, expert_text)

    def _texts(self, text: Float[Tensor, "c t"]) -> Float[Tensor, "e t"]:
        if not self.ask:
            return text[torch.arange(len(self.queries), device=text.device) % len(text)]
        attention: Tensor = (self.queries @ text.T / text.shape[-1] ** 0.5).softmax(-1)
        return attention @ text

    @torch.no_grad()
    def _level(self, chosen: Int[Tensor, "b k"]) -> None:
        """Make it easier for the experts that were chosen too seldom, harder for the others."""
        experts = len(self.load_bias)
        share = torch.bincount(chosen.flatten(), minlength=experts) / chosen.numel()
        self.load_bias += LEVELLING * self.batch_fraction * (1 / experts - share)
