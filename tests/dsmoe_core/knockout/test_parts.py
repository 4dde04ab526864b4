"""Each knock-out neutralises its part only, and leaves no trace in the network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from tiny import SMALL as WITHOUT_TINY_HEAD
from torch import nn

from dsmoe_core.build import build_full_network
from dsmoe_core.knockout.parts import Knockout, knocked_out, knockouts
from dsmoe_core.network import DSMoE, NetworkOutput
from dsmoe_core.outputs import GatingOutput
from dsmoe_core.stages import broadcasting
from dsmoe_core.stages.head import SHALLOW, HeadLevel

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
        *("f_out", "f_moe", "f_moe_mean", "random_experts", "affinity"),
        *("anchors", "offsets", "gates", "pixel_text"),
        *(f"expert_{i}" for i in range(SMALL.experts)),
        *("f_shallow_4", "f_shallow_4_mean"),
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


@contextmanager
def inputs_of(module: nn.Module) -> Iterator[list[torch.Tensor]]:
    """The tensors that a module gets inside the block."""
    seen: list[torch.Tensor] = []
    handle = module.register_forward_pre_hook(
        lambda _m, inputs: seen.extend(v for v in inputs if isinstance(v, torch.Tensor))
    )
    try:
        yield seen
    finally:
        handle.remove()


def inputs_with(network: DSMoE, name: str, module: nn.Module) -> list[torch.Tensor]:
    """What a module gets while a part is neutralised."""
    with knocked_out(network, by_name(network)[name]), inputs_of(module) as seen:
        run(network)
    return seen


def inputs_without(network: DSMoE, module: nn.Module) -> list[torch.Tensor]:
    """What a module gets from the whole network."""
    with inputs_of(module) as seen:
        run(network)
    return seen


def mean_everywhere(maps: torch.Tensor) -> torch.Tensor:
    return maps.mean((2, 3), keepdim=True).expand_as(maps)


def test_without_f_out_the_head_gets_zeros_and_the_same_texts(network: DSMoE) -> None:
    whole, without = inputs_without(network, network.head), inputs_with(network, "f_out", network.head)
    assert whole[0].abs().sum() > 0
    assert torch.equal(without[0], torch.zeros_like(whole[0]))
    assert torch.equal(without[-1], whole[-1])


@pytest.mark.parametrize("name", ["f_moe", "f_moe_mean"])
def test_without_f_moe_stage_10_gets_zeros_or_the_mean_and_the_same_f_e(network: DSMoE, name: str) -> None:
    whole, without = (
        inputs_without(network, network.aggregation),
        inputs_with(network, name, network.aggregation),
    )
    expected = torch.zeros_like(whole[1]) if name == "f_moe" else mean_everywhere(whole[1])
    assert not torch.allclose(whole[1], expected, atol=1e-6)
    assert torch.equal(without[0], whole[0])
    assert torch.allclose(without[1], expected, atol=1e-6)


@pytest.mark.parametrize("name", ["f_shallow_4", "f_shallow_4_mean"])
def test_without_f_shallow_the_level_reads_the_same_f_out(network: DSMoE, name: str) -> None:
    (level,) = (m for m in network.head.modules() if isinstance(m, HeadLevel) and m.shallow is not None)
    (whole,), (without,) = inputs_without(network, level.fuse), inputs_with(network, name, level.fuse)
    of_whole, shallow = whole.split([whole.shape[1] - SHALLOW, SHALLOW], dim=1)
    expected = mean_everywhere(shallow) if name.endswith("_mean") else torch.zeros_like(shallow)
    assert not torch.allclose(shallow, expected, atol=1e-6)
    assert torch.equal(without[:, :-SHALLOW], of_whole)
    assert torch.allclose(without[:, -SHALLOW:], expected, atol=1e-6)


def test_without_anchors_all_classes_have_their_mean(network: DSMoE) -> None:
    seen: list[torch.Tensor] = []
    for context in (nullcontext(), knocked_out(network, by_name(network)["anchors"])):
        with context:
            handle = network.alignment.anchor.register_forward_hook(lambda _m, _i, out: seen.append(out))
            run(network)
            handle.remove()
    whole, without = seen
    assert not torch.equal(whole, without)
    assert torch.allclose(without, whole.mean(0, keepdim=True).expand_as(whole))


def test_without_offsets_the_taps_are_on_the_grid(network: DSMoE, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[torch.Tensor] = []
    sample_taps = broadcasting.sample_taps

    def record(features: torch.Tensor, length: torch.Tensor, *rest: Any) -> torch.Tensor:
        lengths.append(length)
        return sample_taps(features, length, *rest)

    monkeypatch.setattr(broadcasting, "sample_taps", record)
    run(network)
    assert all(length.max() > 0 for length in lengths)
    lengths.clear()
    with knocked_out(network, by_name(network)["offsets"]):
        run(network)
    assert len(lengths) == len(network.broadcasting.scales)
    assert all(length.count_nonzero() == 0 for length in lengths)


def test_without_gates_every_position_has_the_mean_of_the_gate_logits(network: DSMoE) -> None:
    branch = network.broadcasting.scales[0]
    seen: list[torch.Tensor] = []
    for context in (nullcontext(), knocked_out(network, by_name(network)["gates"])):
        with context:
            handle = branch.gate.register_forward_hook(lambda _m, _i, out: seen.append(out))
            run(network)
            handle.remove()
    whole, without = seen
    assert not torch.allclose(whole, without, atol=1e-6)
    assert torch.allclose(without, mean_everywhere(whole), atol=1e-6)


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
