"""The ten stages together: shapes, sparsity, independence of batch and class order, bf16 training."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dsmoe_core.build import build_whole
from dsmoe_core.config import LossWeights, ModelConfig, PaperForms
from dsmoe_core.losses import Boxes, Families, auxiliary_losses, detection_losses
from dsmoe_core.network import DSMoE

SMALL = ModelConfig(
    image_px=128,
    text_width=32,
    encoder_widths=(16, 32, 32, 32),
    encoder_heads=(1, 1, 1, 1),
    encoder_windows=(4, 4, 4, 4),
    width=32,
    ball_dim=8,
    experts=6,
    top_k=2,
    head_width=32,
)


@pytest.fixture
def network() -> DSMoE:
    torch.manual_seed(0)
    return build_whole(SMALL).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, 128, 128, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def text() -> Tensor:
    return torch.randn(4, 32, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("size", ["nano", "base"])
def test_presets_give_boxes_at_their_strides(size: str) -> None:
    config = ModelConfig.of_size(size)  # type: ignore[arg-type]
    network = build_whole(config).eval()
    side = 128 if size == "base" else config.image_px
    with torch.no_grad():
        read = network.read(torch.randn(5, config.text_width), torch.randn(2, config.text_width))
        output = network(torch.rand(1, 3, side, side), read.steering, read.classes)
    assert [level.stride for level in output.levels] == list(config.head_strides)
    for level in output.levels:
        assert level.logits.shape == (1, 5, side // level.stride, side // level.stride)
        assert (level.distances > 0).all()
    assert output.gated.experts.shape == (1, config.top_k)


@torch.no_grad()
def test_a_batch_equals_its_pictures(network: DSMoE, images: Tensor, text: Tensor) -> None:
    whole = network(images, text, text)
    for i in range(len(images)):
        one = network(images[i : i + 1], text, text)
        assert one.gated.experts.tolist() == whole.gated.experts[i : i + 1].tolist()
        for a, b in zip(one.levels, whole.levels, strict=True):
            torch.testing.assert_close(a.logits[0], b.logits[i], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(a.distances[0], b.distances[i], atol=1e-3, rtol=1e-4)


@torch.no_grad()
def test_permuting_the_classes_permutes_the_scores_and_nothing_else(
    network: DSMoE, images: Tensor, text: Tensor
) -> None:
    order = torch.tensor([2, 0, 3, 1])
    read, other = network.read(text, text[:1]), network.read(text[order], text[:1])
    plain = network(images, read.steering, read.classes)
    turned = network(images, other.steering, other.classes)
    for a, b in zip(plain.levels, turned.levels, strict=True):
        torch.testing.assert_close(a.logits[:, order], b.logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(a.distances, b.distances, atol=1e-3, rtol=1e-4)


@torch.no_grad()
def test_with_the_paper_s_code_of_the_class_index_the_order_matters(images: Tensor, text: Tensor) -> None:
    network = build_whole(SMALL.model_copy(update={"paper": PaperForms(class_position=True)})).eval()
    order = torch.tensor([2, 0, 3, 1])
    read, other = network.read(text, text[:1]), network.read(text[order], text[:1])
    plain = network(images, read.steering, read.classes).levels[0].logits[:, order]
    assert (plain - network(images, other.steering, other.classes).levels[0].logits).abs().max() > 1e-4


@torch.no_grad()
def test_adding_a_class_leaves_boxes_and_the_others_scores_as_they_are(
    network: DSMoE, images: Tensor, text: Tensor
) -> None:
    torch.nn.init.normal_(network.distillation.attention.out_proj.weight)  # fresh, stage 2 mixes nothing
    more = torch.cat([text, torch.randn(2, 32)])
    before, after = network.read(text, text[:1]), network.read(more, text[:1], steering=text)
    few = network(images, before.steering, before.classes)
    many = network(images, after.steering, after.classes)
    for a, b in zip(few.levels, many.levels, strict=True):
        assert b.logits.shape[1] == 6
        torch.testing.assert_close(a.logits, b.logits[:, :4], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(a.distances, b.distances, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_inner_nodes_of_the_taxonomy_do_not_touch_the_answer(network: DSMoE, text: Tensor) -> None:
    few, many = network.read(text, text[:1]), network.read(text, torch.randn(7, 32))
    torch.testing.assert_close(few.classes, many.classes)


@torch.no_grad()
def test_an_expert_that_nobody_chose_does_not_run(network: DSMoE, images: Tensor, text: Tensor) -> None:
    called: list[int] = []
    for index, expert in enumerate(network.experts.task):
        expert.register_forward_hook(lambda *_, index=index: called.append(index))
    rows: list[int] = []
    network.experts.cross.register_forward_pre_hook(lambda _, args: rows.extend((args[1] + 2).tolist()))
    output = network(images, text, text)
    chosen = output.gated.experts.flatten().tolist()
    assert set(called) == {i for i in chosen if i < 2}
    assert sorted(rows) == sorted(i for i in chosen if i >= 2)
    torch.testing.assert_close(output.gated.weights.sum(-1), torch.ones(3))


@torch.no_grad()
def test_sparse_experts_equal_the_obvious_loop(network: DSMoE, images: Tensor, text: Tensor) -> None:
    """Eq. 21 by a loop over pictures and experts."""
    seen: dict[str, tuple[Tensor, ...]] = {}
    network.experts.register_forward_hook(lambda _, args, out: seen.update(args=args, out=(out,)))
    network(images, text, text)
    f_b, gated = seen["args"]
    expected = torch.zeros_like(f_b)
    cross = network.experts.cross
    for i, (experts, weights) in enumerate(zip(gated.experts, gated.weights, strict=True)):
        for e, w in zip(experts.tolist(), weights, strict=True):
            if e < 2:
                answer = network.experts.task[e](f_b[i : i + 1])[0]
            else:
                words = gated.expert_text[e] @ cross.textual[e - 2]
                mixed = torch.einsum("dhw,de->hwe", f_b[i], cross.visual[e - 2]) + words
                answer = (
                    torch.nn.functional.layer_norm(mixed, (32,)) * cross.scale[e - 2] + cross.shift[e - 2]
                )
                answer = answer.permute(2, 0, 1)
            expected[i] += w * answer
    torch.testing.assert_close(seen["out"][0], expected, atol=1e-5, rtol=1e-4)


def test_the_closed_form_of_eq_27_equals_autograd(network: DSMoE) -> None:
    stage = network.aggregation.double()
    f_e = torch.randn(2, 32, 3, 3, dtype=torch.float64, requires_grad=True)
    f_moe = torch.randn(2, 32, 3, 3, dtype=torch.float64, requires_grad=True)
    stage.train()
    f_out, misalignment = stage(f_e, f_moe)
    by_e, by_moe = torch.autograd.grad(f_out.sum(), (f_e, f_moe))
    expected = (1 - torch.nn.functional.cosine_similarity(by_e, by_moe, dim=1)).mean()
    torch.testing.assert_close(misalignment.double(), expected, atol=1e-6, rtol=1e-5)


def test_bf16_training_has_no_nan_and_reaches_every_parameter(images: Tensor, text: Tensor) -> None:
    torch.manual_seed(0)
    network = build_whole(SMALL.model_copy(update={"top_k": 6})).train()
    truth = [
        Boxes(torch.tensor([[10.0, 10.0, 40.0, 30.0], [60.0, 60.0, 63.0, 62.0]]), torch.tensor([0, 3])),
        Boxes(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)),
        Boxes(torch.tensor([[0.0, 0.0, 128.0, 128.0]]), torch.tensor([1])),
    ]
    families = Families(torch.tensor([0, 1, 2, 3]), torch.tensor([4, 4, 5, 5]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        read = network.read(text, torch.randn(2, 32))
        output = network(images, read.steering, read.classes)
        inner = network.alignment.anchors(read.inner)
        losses = detection_losses(output, truth, LossWeights())
        losses |= auxiliary_losses(output, read, inner, families, truth, LossWeights())
    sum(losses.values(), start=torch.zeros(())).backward()
    assert all(torch.isfinite(v) for v in losses.values()), losses
    assert set(losses) == {"class", "box", "value_overlap", "taxonomy", "angle", "misalignment", "balance"}
    unreached = [
        n for n, p in network.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()
    ]
    assert unreached == []
