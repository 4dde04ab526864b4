"""Loss on conflicting gradients within an expert: the router learns to send such positions elsewhere.

Source: STGC, "solving token gradient conflict" in mixtures of experts (arXiv 2406.19905, ICLR 2025). The
gradients of the tokens that an expert processes are averaged. A token whose gradient points away from that
mean hinders the others, and its routing is pushed away from the expert. Off by default
(``training.losses.gradient_conflict``).

- Token gradient. Paper: of a token within its expert, approximated for memory. We: of the detection losses
  with respect to the expert's additive parameter alone, the bias of its last layer. That is the weight of the
  pair times the gradient of F_MoE at the position, which one partial backward pass gives for all pairs.
- Mean. Paper: over the tokens routed to the expert. We: those of a micro-batch, in all processes. So the loss
  is estimated from each micro-batch, as the specialisation is.
- Threshold and weight. Paper: no values that we know of. We: both are settings; a pair conflicts when the
  cosine is below ``conflict_threshold``, by default 0. Where a gradient or a mean is 0 there is no conflict.
- Loss. Paper: cross-entropy of the softmax of the negated router logits against the present expert, for each
  conflicting token. We: its mean over the conflicting pairs. Its gradient reaches the router's weights alone,
  not F_b or the texts, so that features do not change to please the router.
- With routing per image a token is an image, and its gradient is the sum over its positions.
- The head must read F_out (``model.head_input``): no other map depends on the experts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from dsmoe_core.outputs import GatingOutput
from dsmoe_core.stage_losses import of_one_process
from dsmoe_core.stages.experts import SparseExperts


@contextmanager
def recorded_mixture(network: nn.Module) -> Iterator[list[Tensor]]:
    """Record F_MoE of every forward pass inside the block; nothing in a network without stage 8.

    The output of a network that Fabric wraps holds converted copies, through which no gradient would flow.
    """
    recorded: list[Tensor] = []
    handles = [
        module.register_forward_hook(lambda _module, _inputs, f_moe: recorded.append(f_moe))
        for module in network.modules()
        if isinstance(module, SparseExperts)
    ]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


def gradient_conflict_loss(
    gated: GatingOutput,
    gradient: Float[Tensor, "b d y x"],
    *,
    threshold: float,
    total: Callable[[Tensor], Tensor] = of_one_process,
) -> Float[Tensor, ""]:
    """Compute the mean of ``-log softmax(-logits)_i`` over the pairs of a token and its expert i in conflict.

    With several processes, their results add up to the mean over all of them.

    Args:
        gated: routing of the images.
        gradient: of the detection losses with respect to F_MoE.
        threshold: cosine below which a pair conflicts.
        total: sums over the processes that train together, without gradients.
    """
    conflicts = conflicting_pairs(gated, gradient, threshold=threshold, total=total)
    cross_entropy = -(-gated.logits).log_softmax(1)
    count = total(conflicts.sum().to(cross_entropy.dtype))
    return (cross_entropy * conflicts).sum() / count.clamp_min(1)


@torch.no_grad()
def conflicting_pairs(
    gated: GatingOutput,
    gradient: Float[Tensor, "b d y x"],
    *,
    threshold: float,
    total: Callable[[Tensor], Tensor] = of_one_process,
) -> Bool[Tensor, "b e h w"]:
    """Return the pairs of a token and a selected expert whose gradient points away from the expert's mean.

    Args:
        gated, gradient, threshold, total: as in :func:`gradient_conflict_loss`.
    """
    if gated.weights.shape[2:] != gradient.shape[2:]:
        gradient = gradient.sum((2, 3), keepdim=True)
    weights = torch.zeros_like(gated.probabilities).scatter_add(1, gated.experts, gated.weights)
    tokens = gradient.to(weights.dtype)
    sums = total(torch.einsum("behw,bdhw->ed", weights, tokens))  # the cosine ignores the count
    cosine = torch.einsum("ed,bdhw->behw", _unit(sums, 1), _unit(tokens, 1))
    defined = tokens.any(1, keepdim=True) & sums.any(1)[:, None, None]
    return (weights > 0) & defined & (cosine < threshold)


def _unit(vectors: Tensor, dim: int) -> Tensor:
    """Scale to length 1; gradients are too short for the bounds of torch's own functions."""
    length: Tensor = torch.linalg.vector_norm(vectors, dim=dim, keepdim=True)
    return vectors / length.clamp_min(torch.finfo(vectors.dtype).tiny)
