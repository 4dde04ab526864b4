"""Knock-outs: neutralise one part of a trained network at inference, to measure what the part contributes.

Nothing is retrained. A part without effect on mAP can be removed; a part with effect is in use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from dsmoe_core.network import DSMoE
from dsmoe_core.outputs import AlignmentOutput, GatingOutput
from dsmoe_core.stages.broadcasting import ScaleBranch
from dsmoe_core.stages.head import HeadLevel

Handles = Sequence[RemovableHandle]
_NO_OFFSET = -1e4
"""A length logit whose sigmoid is 0."""


class Knockout(NamedTuple):
    """One part of the network and how it is neutralised.

    Attributes:
        name: short name, a key of result files.
        description: what is done, as a phrase.
        install: neutralises the part in a network until the handles are removed.
    """

    name: str
    description: str
    install: Callable[[DSMoE], Handles]


@contextmanager
def knocked_out(network: DSMoE, knockout: Knockout) -> Iterator[None]:
    """Neutralise a part of the network inside the block."""
    handles = knockout.install(network)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def knockouts(network: DSMoE, seed: int = 0) -> list[Knockout]:
    """All knock-outs of a network: those of the stages, of each expert, and of each level of F_shallow.

    Args:
        seed: of the random experts and of the shuffled positions.
    """
    experts = range(len(network.gating.queries))
    return [
        Knockout("f_out", "F_out = 0: the head gets F_shallow only, or nothing", _zero_f_out),
        Knockout("f_moe", "F_MoE = 0: the experts are gone", _zero_f_moe),
        Knockout("f_moe_mean", "F_MoE has its mean over the positions everywhere", _mean_f_moe),
        Knockout("random_experts", "random experts instead of the routed ones", _random_experts(seed)),
        Knockout("affinity", "class-position affinity shuffled over the positions", _shuffle_affinity(seed)),
        Knockout("anchors", "all classes have the mean anchor", _mean_anchors),
        Knockout("offsets", "stage 6 samples without offsets", _no_offsets),
        Knockout("gates", "the gates of stage 6 have their mean at every position", _mean_gates),
        Knockout("pixel_text", "stages 5 to 9 get the mean of the class texts", _mean_text),
        *(Knockout(f"expert_{i}", f"expert {i + 1} has weight 0", _without_expert(i)) for i in experts),
        *(of_level for level in levels_with_shallow(network) for of_level in _of_shallow(level)),
    ]


def levels_with_shallow(network: DSMoE) -> list[HeadLevel]:
    """The levels of the head that read F_shallow beside F_out."""
    return [m for m in network.head.modules() if isinstance(m, HeadLevel) and m.shallow is not None]


def _of_shallow(level: HeadLevel) -> list[Knockout]:
    name, at = f"f_shallow_{level.stride}", f"at stride {level.stride}"
    return [
        Knockout(name, f"F_shallow = 0 {at}", _change_shallow(level, torch.zeros_like)),
        Knockout(
            f"{name}_mean",
            f"F_shallow has its mean over the positions everywhere {at}",
            _change_shallow(level, _mean_over_positions),
        ),
    ]


def _mean_over_positions(maps: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
    return maps.mean((2, 3), keepdim=True).expand_as(maps)


def _zero_f_out(network: DSMoE) -> Handles:
    return [
        network.aggregation.register_forward_hook(
            lambda _m, _i, out: out._replace(f_out=torch.zeros_like(out.f_out))
        )
    ]


def _zero_f_moe(network: DSMoE) -> Handles:
    return [network.experts.register_forward_hook(lambda _m, _i, out: torch.zeros_like(out))]


def _mean_f_moe(network: DSMoE) -> Handles:
    return [network.experts.register_forward_hook(lambda _m, _i, out: _mean_over_positions(out))]


def _mean_anchors(network: DSMoE) -> Handles:
    return [
        network.alignment.anchor.register_forward_hook(
            lambda _m, _i, out: out.mean(0, keepdim=True).expand_as(out)
        )
    ]


def _mean_text(network: DSMoE) -> Handles:
    def replace(_module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        images, text, *rest = inputs
        return images, text.mean(0, keepdim=True).expand_as(text), *rest

    return [network.register_forward_pre_hook(replace)]


def _no_offsets(network: DSMoE) -> Handles:
    def replace(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
        length, rotation = output.chunk(2, dim=1)
        return torch.cat([torch.full_like(length, _NO_OFFSET), torch.zeros_like(rotation)], dim=1)

    return [branch.offsets.register_forward_hook(replace) for branch in _scale_branches(network)]


def _mean_gates(network: DSMoE) -> Handles:
    return [
        branch.gate.register_forward_hook(lambda _m, _i, out: _mean_over_positions(out))
        for branch in _scale_branches(network)
    ]


def _scale_branches(network: DSMoE) -> list[ScaleBranch]:
    return [m for m in network.broadcasting.modules() if isinstance(m, ScaleBranch)]


def _without_expert(index: int) -> Callable[[DSMoE], Handles]:
    def change(gated: GatingOutput) -> GatingOutput:
        return gated._replace(weights=gated.weights * (gated.experts != index))

    return lambda network: [_change_gating(network, change)]


def _random_experts(seed: int) -> Callable[[DSMoE], Handles]:
    def install(network: DSMoE) -> Handles:
        generator = torch.Generator().manual_seed(seed)

        def change(gated: GatingOutput) -> GatingOutput:
            order = torch.rand(gated.probabilities.shape, generator=generator).argsort(1)
            return gated._replace(experts=order[:, : gated.experts.shape[1]].to(gated.experts.device))

        return [_change_gating(network, change)]

    return install


def _change_gating(network: DSMoE, change: Callable[[GatingOutput], GatingOutput]) -> RemovableHandle:
    """Change what stage 8 gets from the router; stage 9 and the reported routing are as before."""
    return network.experts.register_forward_pre_hook(lambda _module, inputs: (inputs[0], change(inputs[1])))


def _shuffle_affinity(seed: int) -> Callable[[DSMoE], Handles]:
    def install(network: DSMoE) -> Handles:
        generator = torch.Generator().manual_seed(seed)

        def replace(_module: Any, _inputs: Any, output: AlignmentOutput) -> AlignmentOutput:
            flat = output.log_affinity.flatten(1, 2)
            order = torch.randperm(flat.shape[1], generator=generator).to(flat.device)
            return output._replace(log_affinity=flat[:, order].reshape(output.log_affinity.shape))

        return [network.alignment.register_forward_hook(replace)]

    return install


def _change_shallow(level: HeadLevel, change: Callable[[Tensor], Tensor]) -> Callable[[DSMoE], Handles]:
    def install(_network: DSMoE) -> Handles:
        assert level.shallow is not None  # noqa: S101 - the caller checked it
        return [level.shallow.register_forward_hook(lambda _m, _i, out: change(out))]

    return install
