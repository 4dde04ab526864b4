"""The forward pass of the PyTorch network with a second selection of experts on the same features."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from dsmoe_core.assign import flatten_levels
from dsmoe_core.network import DSMoE, NetworkOutput
from dsmoe_core.outputs import GatingOutput
from dsmoe_core.runtimes.protocol import NextExperts


def next_best(gated: GatingOutput, load_bias: Float[Tensor, " e"]) -> GatingOutput:
    """The same router output with the experts of the ranks k + 1 to 2 k, or the last k ranks if there are
    fewer than 2 k experts; the weights sum to 1.

    With more experts for the tail (long_tailed_routing.py), k differs between positions. The slots that a
    position does not use have weight 0, as in stage 7.

    Args:
        gated: selection of the k best experts.
        load_bias: of the experts, part of the ranking (stage 7).
    """
    slots, experts = gated.experts.shape[1], gated.probabilities.shape[1]
    depth = min(2 * slots, experts)
    ranked = (gated.logits + load_bias[:, None, None]).topk(depth, dim=1).indices
    k = (gated.weights > 0).sum(1, keepdim=True)
    slot = torch.arange(slots, device=k.device)[:, None, None]
    rank = (torch.minimum(k, experts - k) + slot) % depth  # unused slots have any other expert
    selected = ranked.gather(1, rank)
    weights = gated.probabilities.gather(1, selected) * (slot < k)
    return gated._replace(experts=selected, weights=weights / weights.sum(1, keepdim=True))


def forward_with_next_experts(
    network: DSMoE,
    images: Float[Tensor, "b 3 H W"],
    text: Float[Tensor, "s t"],
    classes: Float[Tensor, "c t"],
) -> tuple[NetworkOutput, NextExperts | None]:
    """Run the network as :meth:`DSMoE.forward` does, and its last stages again with the next-best experts.

    Returns:
        The output, and what the next-best experts give; None for a head that does not read F_out.
    """
    stages = network.stages_before_experts(images, text)
    output = network.detect(stages, stages.gated, classes)
    if network.head_input != "f_out":
        return output, None
    following = network.detect(stages, next_best(stages.gated, network.gating.load_bias), classes)
    cells = flatten_levels(following.levels)
    return output, NextExperts(cells.logits, cells.boxes)
