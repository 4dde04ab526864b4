"""Tests of stage 7 against eq. 20, computed per image and expert, and of load balancing."""

from __future__ import annotations

import copy
import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from references import close, linear, random, randomised
from torch import Tensor

from dsmoe_core.outputs import GatingOutput
from dsmoe_core.stages.gating import MIN_TAU, AttentionGating


def projector(x: Tensor, layers: torch.nn.Sequential) -> Tensor:
    """Compute two hidden layers with SiLU, then a linear one."""
    for i in (0, 2):
        x = linear(x, layers[i])
        x = x * torch.sigmoid(x)
    return linear(x, layers[4])


def reference(stage: AttentionGating, f_b: Tensor, text: Tensor, k: int) -> GatingOutput:
    """Compute eq. 20 with the stage's settings, in fp64, at every position or for every image."""
    stage = copy.deepcopy(stage).double()
    count, tau = len(stage.queries), max(float(stage.log_tau.exp()), stage.min_tau)
    expert_text = torch.zeros(count, text.shape[1]).double()
    for e in range(count):
        if not stage.learned_queries:
            expert_text[e] = text[e % len(text)]
            continue
        attention = torch.exp(text @ stage.queries[e] / text.shape[1] ** 0.5)
        expert_text[e] = sum(a * row for a, row in zip(attention / attention.sum(), text, strict=True))
    keys = [
        projector(torch.cat([t, t * q * stage.learned_queries]), stage.text_projector)
        for t, q in zip(expert_text, stage.queries, strict=True)
    ]
    mean_key = sum(keys) / count
    height, width = f_b.shape[2:] if stage.per_position else (1, 1)
    probabilities = torch.zeros(len(f_b), count, height, width).double()
    all_logits = torch.zeros_like(probabilities)
    chosen = torch.zeros(len(f_b), k, height, width, dtype=torch.long)
    weights = torch.zeros(len(f_b), k, height, width, dtype=torch.float64)
    for b, y, x in product(range(len(f_b)), range(height), range(width)):
        descriptor = projector(f_b[b].permute(1, 2, 0), stage.image_projector)
        descriptor = descriptor[y, x] if stage.per_position else descriptor.mean((0, 1))
        logits = torch.stack([_product(stage, descriptor, key, mean_key) / tau for key in keys])
        all_logits[b, :, y, x] = logits
        row = torch.exp(logits) / torch.exp(logits).sum()
        scores = logits + stage.load_bias
        best = sorted(range(count), key=lambda e, scores=scores: -float(scores[e]))[:k]
        best.sort(key=lambda e, row=row: -float(row[e]))
        probabilities[b, :, y, x], chosen[b, :, y, x] = row, torch.tensor(best)
        weights[b, :, y, x] = row[best] / (sum(row[e] for e in best) if stage.renormalise else 1.0)
    return GatingOutput(chosen, weights, probabilities, expert_text, all_logits)


def _product(stage: AttentionGating, descriptor: Tensor, key: Tensor, mean_key: Tensor) -> Tensor:
    if not stage.normalise:
        return descriptor.dot(key)
    x, y = descriptor - stage.centre.mean, key - mean_key
    return x.dot(y) / (x.norm() * y.norm())


@torch.no_grad()
@pytest.mark.parametrize("k", [1, 3, 7])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"per_position": False},
        {"normalise": False},
        {"renormalise": False},
        {"tau": 0.07},
    ],
)
@pytest.mark.parametrize(("classes", "height", "width"), [(1, 3, 5), (4, 5, 3), (7, 2, 2), (9, 2, 2)])
def test_output_equals_the_equation(
    k: int, classes: int, height: int, width: int, settings: dict[str, float]
) -> None:
    stage = randomised(AttentionGating(width=6, text_width=10, experts=7, top_k=k, **settings))
    f_b, text = random(3, 6, height, width), random(classes, 10, seed=1)
    expected, output = reference(stage, f_b, text, k), stage(f_b, text)
    assert output.experts.tolist() == expected.experts.tolist()
    close(output.weights, expected.weights, 1e-5)
    close(output.probabilities, expected.probabilities, 1e-5)
    close(output.expert_text, expected.expert_text, 1e-10)
    close(output.logits, expected.logits, 1e-5)


@torch.no_grad()
@pytest.mark.parametrize("k", [1, 3, 7])
@pytest.mark.parametrize("classes", [4, 7, 9])
def test_the_literal_form_is_the_equation_and_ties_select_the_lower_number(k: int, classes: int) -> None:
    """``w_i = softmax_i(<GAP(W_phi F_b), W_psi T^_i> / tau)``, and the k highest weights."""
    literal = dict.fromkeys(("per_position", "normalise", "renormalise", "learned_queries", "balance"), False)
    stage = AttentionGating(width=6, text_width=10, experts=7, top_k=k, tau=0.07, **literal)
    bias = stage.load_bias.clone()
    stage = randomised(stage)
    stage.load_bias.copy_(bias)
    f_b, text = random(3, 6, 5, 3), random(classes, 10, seed=1)
    output = stage(f_b, text)
    first, tau = stage.text_projector[0], max(float(stage.log_tau.exp()), 0.07)
    for b in range(3):
        phi = projector(f_b[b].permute(1, 2, 0), stage.image_projector).mean((0, 1))
        logits = []
        for i in range(7):
            hidden = first.weight[:, :10] @ text[i % classes] + first.bias
            hidden = linear(hidden * torch.sigmoid(hidden), stage.text_projector[2])
            psi = linear(hidden * torch.sigmoid(hidden), stage.text_projector[4])
            logits.append(float(phi @ psi) / tau)
        exponentials = [math.exp(logit) for logit in logits]
        weights = [value / sum(exponentials) for value in exponentials]
        assert output.probabilities[b, :, 0, 0].tolist() == pytest.approx(weights, abs=1e-5)
        chosen = sorted(range(7), key=lambda i, weights=weights: (-round(weights[i], 9), i))[:k]
        found = dict(
            zip(output.experts[b, :, 0, 0].tolist(), output.weights[b, :, 0, 0].tolist(), strict=True)
        )
        assert found == pytest.approx({i: weights[i] for i in chosen}, abs=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("classes", [7, 9])
def test_experts_of_a_class_each_can_be_compared_as_unit_vectors(classes: int) -> None:
    stage = randomised(AttentionGating(width=6, text_width=10, experts=7, top_k=3, learned_queries=False))
    f_b, text = random(3, 6, 4, 2), random(classes, 10, seed=1)
    expected, output = reference(stage, f_b, text, 3), stage(f_b, text)
    assert output.experts.tolist() == expected.experts.tolist()
    close(output.weights, expected.weights, 1e-5)
    close(output.expert_text, expected.expert_text, 1e-10)


@torch.no_grad()
def test_lower_temperature_sharpens_the_probabilities_and_keeps_the_selection() -> None:
    stage = randomised(AttentionGating(width=6, text_width=10, experts=7, top_k=2))
    stage.load_bias.zero_()
    f_b, text = random(3, 6, 4, 4), random(4, 10, seed=1)
    stage.log_tau.fill_(1.0)
    high = stage(f_b, text)
    stage.log_tau.fill_(-2.0)
    low = stage(f_b, text)
    assert low.experts.tolist() == high.experts.tolist()
    assert (low.probabilities.amax(1) > high.probabilities.amax(1)).all()


@torch.no_grad()
def test_temperature_has_a_lower_bound() -> None:
    stage = randomised(AttentionGating(width=6, text_width=10, experts=7, top_k=2))
    f_b, text = random(3, 6, 4, 4), random(4, 10, seed=1)
    outputs = []
    for tau in (MIN_TAU, MIN_TAU / 100):
        stage.log_tau.fill_(math.log(tau))
        outputs.append(stage(f_b, text).probabilities)
    assert torch.equal(*outputs)


@torch.no_grad()
def test_routing_depends_on_the_class_texts() -> None:
    """Other class texts give other expert vectors, and without texts all experts are the same."""
    stage = randomised(AttentionGating(width=6, text_width=10, experts=7, top_k=2))
    f_b = random(3, 6, 4, 4)
    first, second = (stage(f_b, random(4, 10, seed=seed)).probabilities for seed in (1, 2))
    assert (first - second).abs().max() > 0.05
    close(stage(f_b, torch.zeros(4, 10).double()).probabilities, torch.full_like(first, 1 / 7).double(), 1e-2)


@torch.no_grad()
def test_similar_images_are_routed_differently() -> None:
    """Centring removes what the images share; without it every expert gets 1 / N_e of every image."""
    torch.manual_seed(0)
    stage = AttentionGating(width=6, text_width=10, experts=8, top_k=2, per_position=False).double()
    common, text = random(1, 6, 4, 4) * 10, random(4, 10, seed=1)
    images = [common + random(8, 6, 4, 4, seed=step) for step in range(60)]
    for f_b in images:
        stage(f_b, text)
    probabilities = stage.eval()(torch.cat(images), text).probabilities
    assert variation(probabilities) > 0.1
    stage.normalise = False
    stage.log_tau.fill_(0.0)
    stage.per_position = False
    assert variation(stage(torch.cat(images), text).probabilities) < 0.01


def variation(probabilities: Tensor) -> float:
    """Compute the standard deviation over images, averaged over experts, relative to 1 / N_e."""
    return float(probabilities.std((0, 2, 3)).mean() * probabilities.shape[1])


@torch.no_grad()
def test_load_bias_equalises_the_selection_and_does_not_change_the_weights() -> None:
    torch.manual_seed(0)
    stage = AttentionGating(width=6, text_width=10, experts=8, top_k=2).double()
    text, images = random(4, 10, seed=1), random(400, 6, 4, 4, seed=2)
    before = shares(stage.eval()(images, text))
    for _ in range(400):
        stage.train()(images[torch.randperm(400)[:16]], text)
    after = stage.eval()(images, text)
    assert (shares(after) - 1 / 8).abs().max() < 0.25 * (before - 1 / 8).abs().max()
    close(after.weights, F.normalize(after.probabilities.gather(1, after.experts), p=1, dim=1).double(), 1e-6)
    assert (after.weights.diff(dim=1) <= 0).all()  # highest first


@torch.no_grad()
def test_load_bias_is_not_updated_without_balance() -> None:
    stage = randomised(AttentionGating(width=6, text_width=10, experts=7, top_k=2, balance=False)).train()
    before = stage.load_bias.clone()
    stage(random(3, 6, 4, 4), random(4, 10, seed=1))
    assert torch.equal(stage.load_bias, before)


def shares(output: GatingOutput) -> Tensor:
    """Compute each expert's share of all selections."""
    experts = output.probabilities.shape[1]
    return F.one_hot(output.experts, experts).double().mean((0, 1, 2, 3))


@torch.no_grad()
def test_buffers_change_in_training_mode_only() -> None:
    stage = randomised(AttentionGating(width=6, text_width=10, experts=7, top_k=2))
    f_b, text = random(3, 6, 4, 4), random(4, 10, seed=1)
    before = {name: value.clone() for name, value in stage.named_buffers()}
    stage.eval()(f_b, text)
    assert all(torch.equal(value, before[name]) for name, value in stage.named_buffers())
    stage.train()(f_b, text)
    assert all(not torch.equal(value, before[name]) for name, value in stage.named_buffers())
