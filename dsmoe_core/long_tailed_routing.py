"""Long-tailed routing: more experts for rare positions, and a balance loss on the class texts alone.

Source: LTDR, "long-tailed distribution-aware router" for mixtures of experts in vision-language models
(arXiv 2507.01351). Image tokens are long-tailed: most show background and few show what matters. So a loss
that balances the experts over image tokens does harm, and rare tokens benefit from more experts. The two
settings are independent and off by default.

``model.tail_top_k``: tail positions select more experts.

- Paper: a token is in the tail if the variance of its routing probabilities over the experts (RPV) is above
  the mean of its image. It selects a > k experts. We: the same for the positions of F_b, those of the
  letter-box padding included. An RPV within ``MARGIN`` of the mean is not above it, so that rounding does not
  decide for an image whose positions are all alike.
- Paper: the weights of a tail token are a softmax over its selected experts, those of others are the
  probabilities themselves. We: weights of all positions are formed alike (stages/gating.py), by default
  renormalised to a sum of 1, which is the softmax over the selected experts.
- Paper: a fixed k for all other tokens. We: every position has a slots, and unused slots have weight 0, so
  that all shapes are known when a graph is traced. So stage 8 costs as much as with ``top_k: a``.

``training.losses.text_balance``: the balance loss of Switch Transformers over language tokens.

- Paper: language tokens. We: the class texts T^, one token each.
- Paper: text and image tokens enter the same router. We: a class text enters by the projector of the experts'
  texts (``AttentionGating.route_texts``). A projector of its own would be trained by this loss alone, and
  could lower it without any effect on the experts.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

MARGIN = 1e-4
"""Relative difference of RPV that rounding may cause."""


def tail_positions(probabilities: Float[Tensor, "b h w e"]) -> Bool[Tensor, "b h w"]:
    """Return the positions whose RPV is above the mean RPV of their image.

    Args:
        probabilities: routing probabilities of every position.
    """
    rpv = probabilities.var(-1, correction=0)
    return rpv > rpv.mean((1, 2), keepdim=True) * (1 + MARGIN)


def used_slots(
    probabilities: Float[Tensor, "b h w e"], *, top_k: int, tail_top_k: int
) -> Bool[Tensor, "b h w a"]:
    """Return which of the a best experts of each position are selected: all in the tail, else the best k.

    Args:
        probabilities: routing probabilities of every position.
        top_k, tail_top_k: k and a.
    """
    slots = torch.arange(tail_top_k, device=probabilities.device)
    return tail_positions(probabilities)[..., None] | (slots < top_k)


def unused_last(weights: Float[Tensor, "b h w a"], used: Bool[Tensor, "b h w a"]) -> Float[Tensor, "b h w a"]:
    """Replace the weights of unused slots by negative numbers, which sort behind all others in slot order.

    Runtimes sort equal numbers differently, so these are all different.
    """
    slots = torch.arange(weights.shape[-1], device=weights.device)
    return torch.where(used, weights, (-1 - slots).to(weights.dtype))


def text_balance_loss(probabilities: Float[Tensor, "c e"], top_k: int) -> Float[Tensor, ""]:
    """Compute ``K sum_i F_i G_i``: 1 if the class texts use the K experts evenly, at most K.

    F_i is the share of the texts' selections that expert i has, and G_i its mean probability. Gradients flow
    through G.

    Args:
        probabilities: routing probabilities of every class text.
        top_k: experts that a text selects.
    """
    experts = probabilities.shape[1]
    selected = probabilities.topk(top_k, dim=1).indices
    share = torch.bincount(selected.flatten(), minlength=experts) / max(selected.numel(), 1)
    return experts * (share * probabilities.sum(0) / max(len(probabilities), 1)).sum()
