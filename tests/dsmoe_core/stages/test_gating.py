"""Tests of stage 7 against eq. 20, computed per image and expert, and of load balancing."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from references import close, linear, random, randomised
from torch import Tensor

from dsmoe_core.outputs import GatingOutput
from dsmoe_core.stages.gating import AttentionGating


def projector(x: Tensor, layers: torch.nn.Sequential) -> Tensor:
    """Compute two hidden layers with SiLU, then a linear one."""
    for i in (0, 2):
        x = linear(x, layers[i])
        x = x * torch.sigmoid(x)
    return linear(x, layers[4])


def reference(stage: AttentionGating, f_b: Tensor, text: Tensor, k: int) -> GatingOutput:
    """Compute eq. 20 with the stage's settings, in fp64."""
    stage = copy.deepcopy(stage).double()
    count, tau = len(stage.queries), torch.exp(stage.log_tau)
    expert_text, probabilities = (
        torch.zeros(count, text.shape[1]).double(),
        torch.zeros(len(f_b), count).double(),
    )
    for e in range(count):
        if not stage.learned_queries:
            expert_text[e] = text[e % len(text)]
            continue
        attention = torch.exp(text @ stage.queries[e] / text.shape[1] ** 0.5)
        expert_text[e] = sum(a * row for a, row in zip(attention / attention.sum(), text, strict=True))
    keys = [
        projector(torch.cat([t, q]), stage.text_projector)
        for t, q in zip(expert_text, stage.queries, strict=True)
    ]
    mean_key = sum(keys) / count
    for b, image in enumerate(f_b):
        descriptor = projector(image.flatten(1).T, stage.image_projector).mean(0)
        for e, key in enumerate(keys):
            x, y = descriptor, key
            if stage.normalise:
                x, y = x - stage.centre.mean, y - mean_key
            lengths = x.norm() * y.norm() if stage.normalise else 1.0
            probabilities[b, e] = torch.exp(x.dot(y) / lengths / tau)
        probabilities[b] /= probabilities[b].sum()
    chosen = torch.zeros(len(f_b), k, dtype=torch.long)
    weights = torch.zeros(len(f_b), k, dtype=torch.float64)
    for b, row in enumerate(probabilities):
        scores = row + stage.load_bias
        best = sorted(range(count), key=lambda e, scores=scores: -float(scores[e]))[:k]
        best.sort(key=lambda e, row=row: -float(row[e]))
        chosen[b] = torch.tensor(best)
        weights[b] = row[best] / (sum(row[e] for e in best) if stage.renormalise else 1.0)
    return GatingOutput(chosen, weights, probabilities, expert_text)


@torch.no_grad()
@pytest.mark.parametrize("k", [1, 3, 7])
@pytest.mark.parametrize(
    "settings",
    [{}, {"normalise": False}, {"renormalise": False}, {"learned_queries": False}, {"tau": 0.07}],
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


@torch.no_grad()
def test_lower_temperature_sharpens_the_probabilities_and_keeps_the_selection() -> None:
    stage = randomised(AttentionGating(width=6, text_width=10, experts=7, top_k=2))
    f_b, text = random(3, 6, 4, 4), random(4, 10, seed=1)
    stage.log_tau.fill_(1.0)
    high = stage(f_b, text)
    stage.log_tau.fill_(-3.0)
    low = stage(f_b, text)
    assert low.experts.tolist() == high.experts.tolist()
    assert (low.probabilities.amax(-1) > high.probabilities.amax(-1)).all()


@torch.no_grad()
def test_similar_images_are_routed_differently() -> None:
    """Centring removes what the images share; without it every expert gets 1 / N_e of every image."""
    torch.manual_seed(0)
    stage = AttentionGating(width=6, text_width=10, experts=8, top_k=2).double()
    common, text = random(1, 6, 4, 4) * 10, random(4, 10, seed=1)
    images = [common + random(8, 6, 4, 4, seed=step) for step in range(60)]
    for f_b in images:
        stage(f_b, text)
    probabilities = stage.eval()(torch.cat(images), text).probabilities
    assert variation(probabilities) > 0.1
    stage.normalise = False
    stage.log_tau.fill_(0.0)
    assert variation(stage(torch.cat(images), text).probabilities) < 0.01


def variation(probabilities: Tensor) -> float:
    """Compute the standard deviation over images, averaged over experts, relative to 1 / N_e."""
    return float(probabilities.std(0).mean() * probabilities.shape[1])


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
    close(after.weights, F.normalize(after.probabilities.gather(1, after.experts), p=1).double(), 1e-6)
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
    return F.one_hot(output.experts, experts).double().mean((0, 1))


@torch.no_grad()
def test_buffers_change_in_training_mode_only() -> None:
    stage = randomised(AttentionGating(width=6, text_width=10, experts=7, top_k=2))
    f_b, text = random(3, 6, 4, 4), random(4, 10, seed=1)
    before = {name: value.clone() for name, value in stage.named_buffers()}
    stage.eval()(f_b, text)
    assert all(torch.equal(value, before[name]) for name, value in stage.named_buffers())
    stage.train()(f_b, text)
    assert all(not torch.equal(value, before[name]) for name, value in stage.named_buffers())
