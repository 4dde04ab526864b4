"""Tests of LTDR against its equations, computed position by position and text by text."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from references import close, gated, linear, random, randomised
from tiny import SMALL
from torch import Tensor

from dsmoe_core.build import build_full_network
from dsmoe_core.config import LossWeights, ModelConfig, TrainingConfig
from dsmoe_core.long_tailed_routing import MARGIN, tail_positions, text_balance_loss, used_slots
from dsmoe_core.runtimes.next_experts import next_best
from dsmoe_core.stages.experts import TASK_EXPERTS, SparseExperts
from dsmoe_core.stages.gating import LOAD_BIAS_RATE, AttentionGating

EXPERTS = 7


def variance(row: list[float]) -> float:
    mean = sum(row) / len(row)
    return sum((p - mean) ** 2 for p in row) / len(row)


def tail_reference(probabilities: Tensor) -> list[list[bool]]:
    """Compute for each image (e, h, w) which of its positions, row by row, are in the tail."""
    tails = []
    for image in probabilities:
        rpv = [variance(image[:, y, x].tolist()) for y, x in product(*map(range, image.shape[1:]))]
        tails.append([v > sum(rpv) / len(rpv) * (1 + MARGIN) for v in rpv])
    return tails


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(2, 6), st.integers(0, 99))
@settings(deadline=None)
def test_tail_positions_have_an_rpv_above_the_mean_of_their_image(
    images: int, height: int, width: int, experts: int, seed: int
) -> None:
    probabilities = (random(images, experts, height, width, seed=seed) * 2).softmax(1)
    tail = tail_positions(probabilities.permute(0, 2, 3, 1))
    assert tail.flatten(1).tolist() == tail_reference(probabilities)
    used = used_slots(probabilities.permute(0, 2, 3, 1), top_k=1, tail_top_k=2)
    assert torch.equal(used.sum(-1), 1 + tail.long())


def test_positions_that_are_all_alike_have_no_tail() -> None:
    """Rounding does not decide, also where it makes the variances differ."""
    row = (random(1, 1, 1, EXPERTS) * 2).softmax(-1).float()
    alike = row.expand(2, 20, 20, EXPERTS) * (1 + 1e-6 * random(2, 20, 20, 1).float())
    assert not tail_positions(alike).any()


def stage_and_inputs(**settings: int | bool) -> tuple[AttentionGating, Tensor, Tensor]:
    stage = randomised(AttentionGating(width=6, text_width=10, experts=EXPERTS, **settings))
    return stage, random(3, 6, 5, 4), random(4, 10, seed=1)


@torch.no_grad()
@pytest.mark.parametrize("renormalise", [True, False])
@pytest.mark.parametrize(("top_k", "tail_top_k"), [(1, 2), (2, 4), (3, EXPERTS)])
def test_positions_in_the_tail_select_more_experts(top_k: int, tail_top_k: int, renormalise: bool) -> None:
    stage, f_b, text = stage_and_inputs(top_k=top_k, tail_top_k=tail_top_k, renormalise=renormalise)
    output = stage(f_b, text)
    assert output.experts.shape == output.weights.shape == (3, tail_top_k, 5, 4)
    tails = tail_reference(output.probabilities)
    assert {True, False} <= {one for tail in tails for one in tail}
    for b, y, x in product(range(3), range(5), range(4)):
        count = tail_top_k if tails[b][y * 4 + x] else top_k
        scores = (output.logits[b, :, y, x] + stage.load_bias).tolist()
        row = output.probabilities[b, :, y, x].tolist()
        best = sorted(range(EXPERTS), key=lambda e, scores=scores: -scores[e])[:count]
        best.sort(key=lambda e, row=row: -row[e])
        total = sum(row[e] for e in best) if renormalise else 1.0
        rest = sorted(range(EXPERTS), key=lambda e, scores=scores: -scores[e])[count:tail_top_k]
        assert output.experts[b, :, y, x].tolist() == best + rest
        assert output.weights[b, :count, y, x].tolist() == pytest.approx([row[e] / total for e in best])
        assert output.weights[b, count:, y, x].tolist() == [0.0] * (tail_top_k - count)


@torch.no_grad()
@pytest.mark.parametrize(("top_k", "tail_top_k"), [(1, 2), (2, 4), (1, 5), (3, EXPERTS)])
def test_next_best_experts_skip_no_rank(top_k: int, tail_top_k: int) -> None:
    """Ranks k + 1 to 2 k at each position, or the last k ranks; k is larger in the tail."""
    stage, f_b, text = stage_and_inputs(top_k=top_k, tail_top_k=tail_top_k)
    gated = stage(f_b, text)
    following = next_best(gated, stage.load_bias)
    tails = tail_reference(gated.probabilities)
    assert {True, False} <= {one for tail in tails for one in tail}
    for b, y, x in product(range(3), range(5), range(4)):
        k = tail_top_k if tails[b][y * 4 + x] else top_k
        scores = (gated.logits[b, :, y, x] + stage.load_bias).tolist()
        row = gated.probabilities[b, :, y, x].tolist()
        ranked = sorted(range(EXPERTS), key=lambda e, scores=scores: -scores[e])
        expected = ranked[k : 2 * k] if 2 * k <= EXPERTS else ranked[-k:]
        assert following.experts[b, :k, y, x].tolist() == expected
        total = sum(row[e] for e in expected)
        assert following.weights[b, :k, y, x].tolist() == pytest.approx([row[e] / total for e in expected])
        assert following.weights[b, k:, y, x].tolist() == [0.0] * (tail_top_k - k)


@torch.no_grad()
def test_other_positions_are_routed_as_without_the_setting() -> None:
    stage, f_b, text = stage_and_inputs(top_k=2, tail_top_k=5)
    changed = stage(f_b, text)
    stage.tail_top_k = None
    plain = stage(f_b, text)
    tail = torch.tensor(tail_reference(plain.probabilities)).view(3, 1, 5, 4)
    assert plain.experts.shape[1] == 2
    assert torch.equal(plain.experts * ~tail, changed.experts[:, :2] * ~tail)
    assert torch.equal(plain.weights * ~tail, changed.weights[:, :2] * ~tail)


@torch.no_grad()
def test_load_bias_counts_selected_pairs_only() -> None:
    stage, f_b, text = stage_and_inputs(top_k=1, tail_top_k=EXPERTS)
    stage.load_bias.copy_(torch.arange(EXPERTS) * -50.0)  # expert 0 is first everywhere
    before = stage.load_bias.clone()
    output = stage.train()(f_b, text)
    tails = sum(one for tail in tail_reference(output.probabilities) for one in tail)
    pairs = torch.full((EXPERTS,), float(tails))
    pairs[0] = 3 * 5 * 4
    expected = LOAD_BIAS_RATE * (1 / EXPERTS - pairs / pairs.sum())
    close(stage.load_bias - before, expected.double(), 1e-6)


@torch.no_grad()
def test_experts_compute_nothing_for_pairs_of_weight_zero() -> None:
    tasks = len(TASK_EXPERTS)
    stage = randomised(SparseExperts(width=6, text_width=10, experts=tasks + 3, grid_stride=8))
    f_b, signal = random(2, 6, 4, 5), gated(2, tasks + 3, 2, 10, 4, 5)
    ran: list[int] = []
    for index, expert in enumerate(stage.task):
        expert.register_forward_hook(lambda *_, index=index: ran.append(index))
    signal = signal._replace(experts=signal.experts.clamp_min(tasks))
    expected = stage(f_b, signal)
    slot = torch.zeros_like(signal.experts[:, :1])
    more = signal._replace(
        experts=torch.cat([signal.experts, slot, slot + tasks], 1),
        weights=torch.cat([signal.weights, slot * 0.0, slot * 0.0], 1),
    )
    assert torch.equal(stage(f_b, more), expected)
    assert ran == []


def balance_reference(probabilities: list[list[float]], top_k: int) -> float:
    """Compute K sum F_i G_i with loops over texts and experts."""
    texts, experts = len(probabilities), len(probabilities[0])
    chosen = [0] * experts
    for row in probabilities:
        for e in sorted(range(experts), key=lambda e, row=row: -row[e])[:top_k]:
            chosen[e] += 1
    shares = [count / (texts * top_k) for count in chosen]
    means = [sum(row[e] for row in probabilities) / texts for e in range(experts)]
    return experts * sum(f * g for f, g in zip(shares, means, strict=True))


@given(st.integers(1, 9), st.integers(2, 8), st.data())
@settings(deadline=None)
def test_balance_loss_equals_the_equation(texts: int, experts: int, data: st.DataObject) -> None:
    top_k, seed = data.draw(st.integers(1, experts)), data.draw(st.integers(0, 99))
    probabilities = (random(texts, experts, seed=seed) * 2).softmax(1)
    loss = text_balance_loss(probabilities, top_k)
    assert float(loss) == pytest.approx(balance_reference(probabilities.tolist(), top_k))


def test_balance_loss_is_one_for_even_use_and_the_number_of_experts_for_one_expert() -> None:
    assert float(text_balance_loss(torch.eye(5), 1)) == pytest.approx(1)
    assert float(text_balance_loss(torch.eye(5)[[2, 2, 2]], 1)) == pytest.approx(5)
    assert float(text_balance_loss(torch.zeros(0, 5), 1)) == 0


def text_projection(stage: AttentionGating, x: Tensor) -> Tensor:
    """Compute psi: two hidden layers with SiLU, then a linear one."""
    for i in (0, 2):
        x = linear(x, stage.text_projector[i])
        x = x * torch.sigmoid(x)
    return linear(x, stage.text_projector[4])


@torch.no_grad()
@pytest.mark.parametrize("normalise", [True, False])
def test_class_texts_are_routed_by_the_keys_of_the_experts(normalise: bool) -> None:
    stage, f_b, text = stage_and_inputs(top_k=2, normalise=normalise)
    expert_text, tau = stage(f_b, text).expert_text, max(float(stage.log_tau.exp()), stage.min_tau)
    keys = [
        text_projection(stage, torch.cat([t, t * q])) for t, q in zip(expert_text, stage.queries, strict=True)
    ]
    tokens = [text_projection(stage, torch.cat([row, torch.zeros_like(row)])) for row in text]
    if normalise:
        mean_key, mean_token = sum(keys) / EXPERTS, sum(tokens) / len(tokens)
        keys = [(key - mean_key) / (key - mean_key).norm() for key in keys]
        tokens = [(token - mean_token) / (token - mean_token).norm() for token in tokens]
    logits = torch.stack([torch.stack([token.dot(key) / tau for key in keys]) for token in tokens])
    probabilities = stage.route_texts(text)
    close(probabilities.double(), logits.exp() / logits.exp().sum(1, keepdim=True), 1e-5)


def test_balance_loss_trains_the_experts_texts_and_not_the_positions() -> None:
    stage, _, text = stage_and_inputs(top_k=2)
    text_balance_loss(stage.train().route_texts(text), 2).backward()
    reached = {name.split(".")[0] for name, p in stage.named_parameters() if p.grad is not None}
    assert reached == {"queries", "text_projector", "log_tau"}
    assert stage.queries.grad is not None
    assert stage.queries.grad.any()


def test_a_single_class_has_nothing_to_balance() -> None:
    stage, _, text = stage_and_inputs(top_k=2)
    loss = text_balance_loss(stage.route_texts(text[:1]), 2)
    loss.backward()
    assert loss.item() == pytest.approx(1)
    assert all(p.grad is None or p.grad.abs().max() < 1e-6 for p in stage.parameters())


@pytest.mark.parametrize(
    "change",
    [
        {"tail_top_k": 2},
        {"tail_top_k": 1},
        {"tail_top_k": 5},
        {"tail_top_k": 3, "routing": "image"},
    ],
    ids=str,
)
def test_an_impossible_number_of_experts_is_refused(change: dict[str, int | str]) -> None:
    values = {**SMALL.model_dump(), **change}
    assert (values["top_k"], values["experts"]) == (2, 4)
    with pytest.raises(ValidationError, match="tail_top_k"):
        ModelConfig(**values)
    assert ModelConfig(**{**values, "tail_top_k": 4, "routing": "position"}).tail_top_k == 4


@torch.no_grad()
def test_the_network_has_the_same_weights_with_and_without_the_setting() -> None:
    """The default is off, and a change at every position in the tail is a change of the detections."""
    assert ModelConfig().tail_top_k is None
    assert LossWeights().text_balance == TrainingConfig().losses.text_balance == 0
    torch.manual_seed(0)
    plain = build_full_network(SMALL).eval()
    more = build_full_network(SMALL.model_copy(update={"tail_top_k": 4})).eval()
    more.load_state_dict(plain.state_dict(), strict=True)
    images, text = torch.rand(2, 3, 64, 64), torch.randn(3, SMALL.text_width)
    first, second = plain(images, text, text), more(images, text, text)
    assert second.gated.weights.shape[1] == 4
    assert math.isclose(float(second.gated.weights.sum(1).mean()), 1, rel_tol=1e-5)
    assert torch.equal(first.gated.probabilities, second.gated.probabilities)
    assert not torch.equal(first.levels[0].logits, second.levels[0].logits)
