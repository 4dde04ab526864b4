"""Tests of the complete network: shapes, sparsity, independence of batch and class order, bf16 training."""

from __future__ import annotations

from functools import partial
from itertools import combinations

import pytest
import torch
from references import randomised
from torch import Tensor

from dsmoe_core.build import build_full_network
from dsmoe_core.config import LossWeights, ModelConfig, PaperForms
from dsmoe_core.losses import (
    BatchCounts,
    GroundTruth,
    Taxonomy,
    assign_targets,
    detection_losses,
)
from dsmoe_core.network import DSMoE
from dsmoe_core.stage_losses import auxiliary_losses

SMALL = ModelConfig(
    image_px=128,
    text_width=32,
    encoder_widths=(16, 32, 32, 32),
    encoder_heads=(1, 1, 1, 1),
    encoder_windows=(4, 4, 4, 4),
    width=32,
    ball_dim=8,
    experts=16,
    top_k=2,
    head_width=32,
)
PER_IMAGE = SMALL.model_copy(update={"routing": "image"})
STAGE_LOSSES = ("value_overlap", "taxonomy", "contrast", "affinity", "specialisation", "misalignment")


@pytest.fixture
def network(images: Tensor, text: Tensor) -> DSMoE:
    """Network that routes per image, with random weights and the images' statistics.

    Initial weights give almost equal outputs.
    """
    network = randomised(build_full_network(PER_IMAGE)).float().train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network(images, text, text)
    return network.eval()


@pytest.fixture
def images() -> Tensor:
    """Eight very different images."""
    noise = torch.rand(3, 128, 128, generator=torch.Generator().manual_seed(1))
    ramp = torch.linspace(0, 1, 128).expand(3, 128, 128)
    stripes = (torch.arange(128) // 8 % 2).float().expand(3, 128, 128)
    board = (stripes - stripes.mT).abs()
    red = torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(3, 128, 128)
    return torch.stack([noise * 0, noise, noise / 5, ramp, ramp.mT, stripes, board, red])


@pytest.fixture
def text() -> Tensor:
    return torch.randn(4, 32, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("size", ["nano", "base"])
def test_presets_predict_at_their_strides(size: str) -> None:
    config = ModelConfig.of_size(size)  # type: ignore[arg-type]
    network = build_full_network(config).eval()
    side = 128 if size == "base" else config.image_px
    with torch.no_grad():
        encoding = network.encode_classes(
            torch.randn(5, config.text_width), torch.randn(2, config.text_width)
        )
        output = network(torch.rand(1, 3, side, side), encoding.conditioning, encoding.classes)
    assert [level.stride for level in output.levels] == list(config.head_strides)
    for level in output.levels:
        assert level.logits.shape == (1, 5, side // level.stride, side // level.stride)
        assert (level.distances > 0).all()
    cells = side // config.grid_stride
    assert output.gated.experts.shape == (1, config.top_k, cells, cells)


@torch.no_grad()
def route_each_image_to_its_own_experts(network: DSMoE, images: Tensor, text: Tensor) -> None:
    """Set the experts' keys so that image i selects the experts i and i + 8."""
    descriptors: list[Tensor] = []
    hook = network.gating.image_projector.register_forward_hook(
        lambda _, __, out: descriptors.append(out.mean((2, 3)))
    )
    network(images, text, text)
    hook.remove()
    mean = descriptors[0].mean(0)
    network.gating.centre.mean.copy_(mean)
    network.gating.load_bias.zero_()
    keys = torch.linalg.pinv(descriptors[0] - mean).T  # each is orthogonal to all images but one
    network.gating.text_projector.register_forward_hook(
        lambda *_: torch.cat([keys, keys + 0.1 * keys.roll(1, 0)])
    )


@torch.no_grad()
def test_a_batch_gives_the_same_outputs_as_its_images_alone(
    network: DSMoE, images: Tensor, text: Tensor
) -> None:
    route_each_image_to_its_own_experts(network, images, text)
    whole = network(images, text, text)
    assert whole.gated is not None
    assert whole.gated.experts[..., 0, 0].sort().values.tolist() == [[i, i + 8] for i in range(8)]
    for a, b in combinations(range(8), 2):
        apart = max((level.logits[a] - level.logits[b]).abs().max() for level in whole.levels)
        assert apart > 0.1, "the outputs of the images must differ"
    for i in range(8):
        one = network(images[i : i + 1], text, text)
        assert one.gated is not None
        assert one.gated.experts.tolist() == whole.gated.experts[i : i + 1].tolist()
        for a, b in zip(one.levels, whole.levels, strict=True):
            torch.testing.assert_close(a.logits[0], b.logits[i], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(a.distances[0], b.distances[i], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_permuting_the_classes_permutes_the_scores_only(network: DSMoE, images: Tensor, text: Tensor) -> None:
    order = torch.tensor([2, 0, 3, 1])
    encoding = network.encode_classes(text, text[:1])
    permuted_encoding = network.encode_classes(text[order], text[:1])
    plain = network(images, encoding.conditioning, encoding.classes)
    permuted = network(images, permuted_encoding.conditioning, permuted_encoding.classes)
    equal = partial(torch.testing.assert_close, atol=1e-5, rtol=1e-5)
    for a, b in zip(plain.levels, permuted.levels, strict=True):
        assert (a.logits - b.logits).abs().max() > 1e-2, "the scores of the classes must differ"
        equal(a.logits[:, order], b.logits)
        equal(a.distances, b.distances)
    assert plain.gated is not None
    assert permuted.gated is not None
    assert torch.equal(plain.gated.experts, permuted.gated.experts)
    equal(plain.gated.weights, permuted.gated.weights)
    equal(plain.gated.probabilities, permuted.gated.probabilities)
    assert plain.aligned is not None
    assert permuted.aligned is not None
    equal(plain.aligned.distance[:, order], permuted.aligned.distance)


@torch.no_grad()
def test_with_class_position_the_class_order_changes_the_scores(images: Tensor, text: Tensor) -> None:
    network = build_full_network(SMALL.model_copy(update={"paper": PaperForms(class_position=True)})).eval()
    order = torch.tensor([2, 0, 3, 1])
    encoding, permuted = (network.encode_classes(t, text[:1]) for t in (text, text[order]))
    plain = network(images, encoding.conditioning, encoding.classes).levels[0].logits[:, order]
    logits = network(images, permuted.conditioning, permuted.classes).levels[0].logits
    assert (plain - logits).abs().max() > 1e-4


@torch.no_grad()
def test_adding_a_class_changes_neither_boxes_nor_scores_of_the_others(
    network: DSMoE, images: Tensor, text: Tensor
) -> None:
    more = torch.cat([text, torch.randn(2, 32)])
    before, after = (
        network.encode_classes(text, text[:1]),
        network.encode_classes(more, text[:1], conditioning=text),
    )
    few = network(images, before.conditioning, before.classes)
    many = network(images, after.conditioning, after.classes)
    for a, b in zip(few.levels, many.levels, strict=True):
        assert b.logits.shape[1] == 6
        torch.testing.assert_close(a.logits, b.logits[:, :4], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(a.distances, b.distances, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_inner_nodes_do_not_change_the_class_encoding(network: DSMoE, text: Tensor) -> None:
    few, many = network.encode_classes(text, text[:1]), network.encode_classes(text, torch.randn(7, 32))
    torch.testing.assert_close(few.classes, many.classes)


@torch.no_grad()
def test_experts_run_for_the_images_that_selected_them_only(
    network: DSMoE, images: Tensor, text: Tensor
) -> None:
    route_each_image_to_its_own_experts(network, images, text)
    tasks = len(network.experts.task)
    called: list[tuple[int, int]] = []
    for index, expert in enumerate(network.experts.task):
        expert.register_forward_hook(lambda _, args, __, i=index: called.append((i, len(args[0]))))
    rows: list[int] = []
    network.experts.cross.register_forward_pre_hook(lambda _, args: rows.extend(args[1].flatten().tolist()))
    for subset in ([0], [1, 2], [3], [0, 1, 5], range(8)):
        called.clear()
        rows.clear()
        network(images[list(subset)], text, text)
        selected = [e for i in subset for e in (i, i + 8)]
        assert called == [(e, 1) for e in range(tasks) if e in selected]
        cells = (SMALL.image_px // SMALL.grid_stride) ** 2
        assert sorted(e + tasks for e in rows) == sorted(selected * cells)


def test_bf16_training_gives_every_parameter_a_finite_gradient(images: Tensor, text: Tensor) -> None:
    images = images[[1, 3, 6]]
    torch.manual_seed(0)
    network = build_full_network(SMALL.model_copy(update={"top_k": SMALL.experts})).train()
    truth = [
        GroundTruth(torch.tensor([[10.0, 10.0, 40.0, 30.0], [60.0, 60.0, 63.0, 62.0]]), torch.tensor([0, 3])),
        GroundTruth(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)),
        GroundTruth(torch.tensor([[0.0, 0.0, 128.0, 128.0]]), torch.tensor([1])),
    ]
    taxonomy = Taxonomy(torch.tensor([0, 1, 2, 3]), torch.tensor([4, 4, 5, 5]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        encoding = network.encode_classes(text, torch.randn(2, 32))
        output = network(images, encoding.conditioning, encoding.classes)
        inner = network.alignment.anchors(encoding.inner)
        targets = assign_targets(output, truth)
        counts = BatchCounts.from_targets(targets, truth)
        losses = detection_losses(output, targets, counts, LossWeights())
        losses |= auxiliary_losses(output, encoding, inner, taxonomy, truth, counts, LossWeights())
    sum(losses.values(), start=torch.zeros(())).backward()
    assert all(torch.isfinite(v) for v in losses.values()), losses
    assert set(losses) == {"class", "box", *STAGE_LOSSES}
    without_gradient = [
        n for n, p in network.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()
    ]
    assert without_gradient == []


STAGES = {
    "f_enc": "image_encoder.",
    "f_cs": "cbam.",
    "f_b": "broadcasting.",
    "f_e": "ensemble.",
    "f_out": "experts.",
}


@pytest.mark.parametrize("head_input", STAGES)
def test_the_head_uses_the_stages_up_to_its_input_only(head_input: str, images: Tensor, text: Tensor) -> None:
    config = PER_IMAGE.model_copy(update={"head_input": head_input, "head_shallow": False})
    network = randomised(build_full_network(config)).float().eval()
    levels = network(images, text, text).levels
    sum(level.logits.sum() + level.distances.sum() for level in levels).backward()
    used = {
        name: any(
            p.grad is not None and bool(p.grad.abs().sum() > 0)
            for key, p in network.named_parameters()
            if key.startswith(prefix)
        )
        for name, prefix in STAGES.items()
    }
    order = list(STAGES)
    assert [used[name] for name in order] == [i <= order.index(head_input) for i in range(len(order))]


def test_only_the_complete_network_can_move_the_input_of_the_head() -> None:
    with pytest.raises(ValueError, match="head_input"):
        ModelConfig(ablation="C", head_input="f_b")
