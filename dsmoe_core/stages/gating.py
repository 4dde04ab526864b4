"""Stage 7: attention-driven gating with top-k selection of experts (eq. 20).

``w_i = softmax_i(<phi(F_b), psi(T^_i)> / tau)`` with ``psi(T^_i) = W_psi T^_i``; both projectors have two
hidden layers of 128.

- Positions. Paper: ``phi(F_b) = GAP(W_phi F_b)``, so an image selects its experts as a whole. We: no average,
  so every position of F_b selects its own. An image with defects of five classes cannot select an expert for
  each of them. The paper's form is ``per_position=False``.
- Temperature. Paper: tau is learnable from 0.1, elsewhere in the text from 0.07. We: from 0.25, and never
  below 0.1, because a saturated softmax sends no gradient to the experts that were not selected. The literal
  form is ``tau=0.07``.
- Expert text. Paper: "T^_i is the class-specific text embedding for expert i", yet N_e = 32 is not C. We:
  each expert has a learned query that attends over T^, so classes can change without changing the experts.
  The projector reads what the query attended to, and its product with the query, so that experts differ also
  with a single class. The literal form is ``learned_queries=False``: expert i reads T^_(i mod C), and the
  projector nothing else. Experts of the same class then have the same weight everywhere, so a small initial
  load bias selects those of lower number first; otherwise rounding decides, differently in each runtime.
- Inner product. Paper: of vectors of any length. We: of unit vectors, because at tau = 0.1 an unbounded
  product saturates the softmax. The mean over images and the mean over experts are subtracted before: the
  images of one factory, and experts that share one projector, otherwise point in almost the same direction,
  every expert gets 1 / N_e of every position, and rounding decides. The literal form is ``normalise=False``.
- Weights. Paper: the softmax values of the selected experts. We: renormalise them to a sum of 1, so that the
  scale of F_MoE does not depend on k. The literal form is ``renormalise=False``.
- Load balancing. Paper: nothing prevents an expert from never being selected, and such an expert never
  learns. We: a load bias per expert, updated in training, which is added to the logits for the selection and
  not to the weights (Wang et al. 2024, "Auxiliary-Loss-Free Load Balancing Strategy for Mixture-of-Experts").
  A balance loss as in Switch Transformers is also minimal when all experts are equally likely for every
  image, and in our trainings it led there. The literal form is ``balance=False``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from dsmoe_core.long_tailed_routing import unused_last, used_slots
from dsmoe_core.outputs import GatingOutput
from dsmoe_core.running_mean import RunningMean

DESCRIPTOR_WIDTH = 64
"""d_g."""
CENTRE_MOMENTUM = 0.05
LOAD_BIAS_RATE = 0.1
"""Step size of the load bias per batch, in logits; large enough for trainings of a few hundred steps."""
TAU, PAPER_TAU = 0.25, 0.07
MIN_TAU = 0.1
TIE_BIAS = 1e-4
"""Difference of the initial load bias of successive experts in the literal form, in logits."""
SHORTEST_KEY = 1e-3
"""Shorter differences between expert vectors are rounding errors and are not scaled to length 1."""


class AttentionGating(nn.Module):
    """Router: selects k experts per position, or per image.

    Args:
        width: channels of F_b.
        text_width: d_t, width of the class embeddings.
        experts: N_e, number of experts.
        top_k: k, experts selected.
        tail_top_k: a, experts selected at positions in the tail (long_tailed_routing.py); None: k everywhere.
        per_position: select per position instead of per image.
        normalise: compare centred unit vectors.
        renormalise: divide the selected weights by their sum.
        learned_queries: compute the text embedding of each expert by attention of its query over T^.
        balance: update the load bias in training.
        tau: initial temperature.
        hidden: width of the hidden layers of the projectors.

    Attributes:
        batch_fraction: share of the training batch that the next forward pass processes; it scales the update
            of the load bias.
    """

    def __init__(
        self,
        *,
        width: int,
        text_width: int,
        experts: int,
        top_k: int,
        tail_top_k: int | None = None,
        per_position: bool = True,
        normalise: bool = True,
        renormalise: bool = True,
        learned_queries: bool = True,
        balance: bool = True,
        tau: float = TAU,
        hidden: int = 128,
    ) -> None:
        super().__init__()
        self.top_k, self.tail_top_k, self.per_position = top_k, tail_top_k, per_position
        self.normalise, self.renormalise = normalise, renormalise
        self.learned_queries, self.balance = learned_queries, balance
        self.queries = nn.Parameter(torch.randn(experts, text_width))
        self.image_projector = nn.Sequential(
            nn.Conv2d(width, hidden, 1),
            nn.SiLU(),
            nn.Conv2d(hidden, hidden, 1),
            nn.SiLU(),
            nn.Conv2d(hidden, DESCRIPTOR_WIDTH, 1),
        )
        self.text_projector = nn.Sequential(
            nn.Linear(2 * text_width, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, DESCRIPTOR_WIDTH),
        )
        self.centre = RunningMean(DESCRIPTOR_WIDTH, momentum=CENTRE_MOMENTUM)
        self.log_tau = nn.Parameter(torch.tensor(tau).log())
        self.min_tau = min(tau, MIN_TAU)
        self.load_bias: Tensor
        self.register_buffer("load_bias", torch.arange(experts) * (0.0 if learned_queries else -TIE_BIAS))
        self.batch_fraction = 1.0

    def forward(self, f_b: Float[Tensor, "b d h w"], text: Float[Tensor, "c t"]) -> GatingOutput:
        """Select the experts of every position or image, highest weight first."""
        expert_text = self._expert_text(text)
        features = self.image_projector(f_b)
        if not self.per_position:
            features = features.mean((2, 3), keepdim=True)
        keys = self._keys(text, expert_text)
        with torch.autocast(f_b.device.type, enabled=False):  # fp32: small differences decide the selection
            logits = self._logits(features.permute(0, 2, 3, 1).float(), keys.float())
            probabilities = logits.softmax(-1)
            selected = (logits + self.load_bias).topk(self.tail_top_k or self.top_k, dim=-1).indices
        weights, used = probabilities.gather(-1, selected), None
        if self.tail_top_k is not None:
            used = used_slots(probabilities, top_k=self.top_k, tail_top_k=self.tail_top_k)
            weights = unused_last(weights, used)
        if self.training and self.balance:
            self._update_load_bias(selected if used is None else selected[used])
        weights, order = weights.sort(-1, descending=True)
        weights = weights if used is None else weights.clamp_min(0)
        selected = selected.gather(-1, order)
        if self.renormalise:
            weights = weights / weights.sum(-1, keepdim=True)
        positions = (v.permute(0, 3, 1, 2) for v in (selected, weights, probabilities, logits))
        selected, weights, probabilities, logits = positions
        return GatingOutput(selected, weights, probabilities, expert_text, logits)

    def route_texts(self, text: Float[Tensor, "c t"]) -> Float[Tensor, "c e"]:
        """Compute the routing probabilities of the class texts themselves, for the balance loss of LTDR.

        The projector of the experts' texts reads each text, without a query. What the texts share is
        subtracted, as it is from the positions.
        """
        tokens = self._project(text).float()
        keys = self._keys(text, self._expert_text(text)).float()
        if self.normalise:
            tokens = F.normalize(tokens - tokens.mean(0), dim=-1, eps=SHORTEST_KEY)
        return self._scaled_product(tokens, keys).softmax(-1)

    def _keys(self, text: Float[Tensor, "c t"], expert_text: Float[Tensor, "e t"]) -> Float[Tensor, "e g"]:
        """Compute psi of the text of every expert."""
        if not self.learned_queries:
            return self._of_experts(self._project(text))
        keys: Tensor = self.text_projector(torch.cat([expert_text, expert_text * self.queries], dim=-1))
        return keys

    def _project(self, text: Float[Tensor, "c t"]) -> Float[Tensor, "c g"]:
        """Compute ``W_psi T^``, without a query."""
        projected: Tensor = self.text_projector(torch.cat([text, torch.zeros_like(text)], dim=-1))
        return projected

    def _of_experts(self, rows: Float[Tensor, "c d"]) -> Float[Tensor, "e d"]:
        """Return the row of class i modulo C for every expert i."""
        return rows[torch.arange(len(self.queries), device=rows.device) % len(rows)]

    def _logits(
        self, features: Float[Tensor, "b h w g"], keys: Float[Tensor, "e g"]
    ) -> Float[Tensor, "b h w e"]:
        if self.normalise:
            if self.training:
                self.centre.update(features.mean((1, 2)))
            features = F.normalize(self.centre(features), dim=-1)
        return self._scaled_product(features, keys)

    def _scaled_product(
        self, features: Float[Tensor, "*p g"], keys: Float[Tensor, "e g"]
    ) -> Float[Tensor, "*p e"]:
        if self.normalise:
            keys = F.normalize(keys - keys.mean(0), dim=-1, eps=SHORTEST_KEY)
        logits: Tensor = features @ keys.T / self.log_tau.exp().clamp_min(self.min_tau)
        return logits

    def _expert_text(self, text: Float[Tensor, "c t"]) -> Float[Tensor, "e t"]:
        if not self.learned_queries:
            return self._of_experts(text)
        attention: Tensor = (self.queries @ text.T / text.shape[-1] ** 0.5).softmax(-1)
        return attention @ text

    @torch.no_grad()
    def _update_load_bias(self, selected: Int[Tensor, "*n"]) -> None:
        """Raise the bias of experts that are selected too rarely and lower that of the others.

        Args:
            selected: expert of each selected pair of a position and an expert.
        """
        experts = len(self.load_bias)
        share = torch.bincount(selected.flatten(), minlength=experts) / selected.numel()
        self.load_bias += LOAD_BIAS_RATE * self.batch_fraction * (1 / experts - share)
