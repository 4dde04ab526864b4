"""Each knock-out neutralises its part only, and leaves no trace in the network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import SMALL as WITHOUT_TINY_HEAD

from dsmoe_core.build import build_full_network
from dsmoe_core.knockout.parts import Knockout, knocked_out, knockouts
from dsmoe_core.network import DSMoE, NetworkOutput
from dsmoe_core.outputs import GatingOutput

CLASSES = 3
SMALL = WITHOUT_TINY_HEAD.with_tiny_head(True)


@pytest.fixture(scope="module")
def network() -> DSMoE:
    torch.manual_seed(0)
    made = build_full_network(SMALL).eval()
    with torch.no_grad():
        made.alignment.logit_scale.fill_(20.0)  # an untrained affinity is nearly constant
        for branch in made.broadcasting.scales:
            branch.offsets.norm.weight.fill_(3.0)
            branch.log_delta.fill_(0.0)
    return made


def run(network: DSMoE) -> NetworkOutput:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(3, 3, SMALL.image_px, SMALL.image_px, generator=generator)
    text = torch.randn(CLASSES, SMALL.text_width, generator=generator)
    with torch.no_grad():
        output: NetworkOutput = network(images, text, text)
    return output


def logits(output: NetworkOutput) -> torch.Tensor:
    return torch.cat([level.logits.flatten(2) for level in output.levels], dim=2)


def by_name(network: DSMoE) -> dict[str, Knockout]:
    return {knockout.name: knockout for knockout in knockouts(network)}


def test_there_is_one_for_each_part_expert_and_level(network: DSMoE) -> None:
    assert list(by_name(network)) == [
        *("f_out", "f_moe", "random_experts", "affinity", "anchors", "offsets", "gates", "pixel_text"),
        *(f"expert_{i}" for i in range(SMALL.experts)),
        "f_shallow_4",
    ]


def signals(network: DSMoE) -> list[torch.Tensor]:
    """F_b, F_e, F_MoE, F_out and F_shallow as the next stages get them, and the logits."""
    seen: list[torch.Tensor] = []

    def record(_module: Any, inputs: tuple[Any, ...]) -> None:
        for value in inputs:
            if not isinstance(value, GatingOutput):
                seen.extend([value] if isinstance(value, torch.Tensor) else value)

    modules = (network.experts, network.aggregation, network.head)
    handles = [module.register_forward_pre_hook(record) for module in modules]
    try:
        output = run(network)
    finally:
        for handle in handles:
            handle.remove()
    return [*seen, logits(output)]


def test_every_part_changes_a_signal_and_nothing_stays_changed(network: DSMoE) -> None:
    whole, gated = signals(network), run(network).gated
    assert gated is not None
    selected = set(gated.experts.flatten().tolist())
    for name, knockout in by_name(network).items():
        with knocked_out(network, knockout):
            changed = signals(network)
        expected = not name.startswith("expert_") or int(name.removeprefix("expert_")) in selected
        differs = not all(torch.equal(a, b) for a, b in zip(changed, whole, strict=True))
        assert differs == expected, name
        assert all(torch.equal(a, b) for a, b in zip(signals(network), whole, strict=True)), name


def test_network_is_restored_after_an_error(network: DSMoE) -> None:
    whole = logits(run(network))
    with pytest.raises(RuntimeError), knocked_out(network, by_name(network)["f_out"]):
        raise RuntimeError
    assert torch.equal(logits(run(network)), whole)


def test_without_an_expert_the_sum_lacks_its_share(network: DSMoE) -> None:
    f_b = torch.randn(2, SMALL.width, 4, 4, generator=torch.Generator().manual_seed(2))
    experts = torch.tensor([[0, 3], [2, 1]])[..., None, None]
    weights = torch.tensor([[0.75, 0.25], [0.5, 0.5]])[..., None, None]
    probabilities = torch.full((2, SMALL.experts, 1, 1), 0.25)
    gated = GatingOutput(
        experts, weights, probabilities, torch.randn(SMALL.experts, SMALL.text_width), probabilities.log()
    )
    with torch.no_grad():
        with knocked_out(network, by_name(network)["expert_3"]):
            without = network.experts(f_b, gated)
        expected = network.experts(
            f_b, gated._replace(weights=torch.tensor([[0.75, 0.0], [0.5, 0.5]])[..., None, None])
        )
        whole = network.experts(f_b, gated)
    assert torch.equal(without, expected)
    assert not torch.equal(without[0], whole[0])
    assert torch.equal(without[1], whole[1])


def test_random_experts_are_distinct_and_the_same_for_a_seed(network: DSMoE) -> None:
    seen: list[GatingOutput] = []
    handle = network.experts.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[1]))
    try:
        for seed in (0, 0, 1):
            random = next(k for k in knockouts(network, seed) if k.name == "random_experts")
            with knocked_out(network, random):
                handle.remove()
                handle = network.experts.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[1]))
                run(network)
    finally:
        handle.remove()
    first, again, other = (gated.experts for gated in seen)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert all(len(set(row)) == SMALL.top_k for row in first.permute(0, 2, 3, 1).flatten(0, 2).tolist())


def test_mean_text_makes_the_pixel_path_equal_for_all_classes(network: DSMoE) -> None:
    with knocked_out(network, by_name(network)["pixel_text"]):
        output = run(network)
    assert output.aligned is not None
    affinity = output.aligned.affinity
    assert torch.allclose(affinity, affinity[..., :1].expand_as(affinity))


def test_shuffled_affinity_has_the_same_values_at_other_positions(network: DSMoE) -> None:
    whole = run(network).aligned
    with knocked_out(network, by_name(network)["affinity"]):
        shuffled = run(network).aligned
    assert whole is not None
    assert shuffled is not None
    assert not torch.equal(shuffled.affinity, whole.affinity)
    flat = (t.affinity.flatten(1, 2).sort(dim=1).values for t in (whole, shuffled))
    assert torch.equal(*flat)
