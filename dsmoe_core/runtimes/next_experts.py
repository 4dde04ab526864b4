"""The forward pass of the PyTorch network with a second selection of experts on the same features."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from dsmoe_core.assign import flatten_levels
from dsmoe_core.network import DSMoE, NetworkOutput
from dsmoe_core.outputs import GatingOutput
from dsmoe_core.runtimes.protocol import NextExperts


def next_best(gated: GatingOutput, load_bias: Float[Tensor, " e"]) -> GatingOutput:
    """The same router output with the experts of the ranks k + 1 to 2 k, or the last k ranks if there are
    fewer than 2 k experts; the weights sum to 1.

    Args:
        gated: selection of the k best experts.
        load_bias: of the experts, part of the ranking (stage 7).
    """
    k, experts = gated.experts.shape[1], gated.probabilities.shape[1]
    ranked = (gated.logits + load_bias[:, None, None]).topk(min(2 * k, experts), dim=1).indices
    selected = ranked[:, -k:]
    weights = gated.probabilities.gather(1, selected)
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
    f_enc, pyramid = network.image_encoder(images)  # 3
    f_cs = network.cbam(f_enc)  # 4
    aligned = network.alignment(f_cs, text)  # 5
    f_b = network.broadcasting(f_cs, aligned, text)  # 6
    gated = network.gating(f_b, text)  # 7
    f_e = network.ensemble(f_b, text, aligned, gated)  # 9
    shallow = [pyramid[i] for i in network.head_levels]

    def detect(selection: GatingOutput) -> NetworkOutput:
        f_out, misalignment = network.aggregation(f_e, network.experts(f_b, selection))  # 8 and 10
        maps = {"f_enc": f_enc, "f_cs": f_cs, "f_b": f_b, "f_e": f_e, "f_out": f_out}
        levels = network.head(maps[network.head_input], shallow, classes)
        return NetworkOutput(levels, aligned, selection, misalignment, f_enc)

    output = detect(gated)
    if network.head_input != "f_out":
        return output, None
    following = flatten_levels(detect(next_best(gated, network.gating.load_bias)).levels)
    return output, NextExperts(following.logits, following.boxes)
