"""Stage 7 against eq. 20: expert by expert, then the k best of every image."""

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
    """Two hidden layers with SiLU, then a linear one."""
    for i in (0, 2):
        x = linear(x, layers[i])
        x = x * torch.sigmoid(x)
    return linear(x, layers[4])


def reference(stage: AttentionGating, f_b: Tensor, text: Tensor, k: int) -> GatingOutput:
    """Eq. 20, with what the stage says of lengths (``unit``), sums (``share``) and words (``ask``)."""
    stage = copy.deepcopy(stage).double()
    count, tau = len(stage.queries), torch.exp(stage.log_tau)
    expert_text, probabilities = (
        torch.zeros(count, text.shape[1]).double(),
        torch.zeros(len(f_b), count).double(),
    )
    for e in range(count):
        if not stage.ask:
            expert_text[e] = text[e % len(text)]
            continue
        strength = torch.exp(text @ stage.queries[e] / text.shape[1] ** 0.5)
        expert_text[e] = sum(s * row for s, row in zip(strength / strength.sum(), text, strict=True))
    reads = [
        projector(torch.cat([t, q]), stage.text) for t, q in zip(expert_text, stage.queries, strict=True)
    ]
    common = sum(reads) / count
    for b, image in enumerate(f_b):
        seen = projector(image.flatten(1).T, stage.image).mean(0)
        for e, read in enumerate(reads):
            one, other = (seen - stage.centre.mean, read - common) if stage.unit else (seen, read)
            lengths = one.norm() * other.norm() if stage.unit else 1.0
            probabilities[b, e] = torch.exp(one.dot(other) / lengths / tau)
        probabilities[b] /= probabilities[b].sum()
    chosen = torch.zeros(len(f_b), k, dtype=torch.long)
    weights = torch.zeros(len(f_b), k, dtype=torch.float64)
    for b, row in enumerate(probabilities):
        favour = row + stage.load_bias
        best = sorted(range(count), key=lambda e, favour=favour: -float(favour[e]))[:k]
        best.sort(key=lambda e, row=row: -float(row[e]))
        chosen[b] = torch.tensor(best)
        weights[b] = row[best] / (sum(row[e] for e in best) if stage.share else 1.0)
    return GatingOutput(chosen, weights, probabilities, expert_text)


@torch.no_grad()
@pytest.mark.parametrize("k", [1, 3, 7])
@pytest.mark.parametrize("letter", [{}, {"unit": False}, {"share": False}, {"ask": False}, {"tau": 0.07}])
@pytest.mark.parametrize(("classes", "height", "width"), [(1, 3, 5), (4, 5, 3), (7, 2, 2), (9, 2, 2)])
def test_equals_the_equation(k: int, classes: int, height: int, width: int, letter: dict[str, float]) -> None:
    stage = randomised(AttentionGating(width=6, text_width=10, experts=7, top_k=k, **letter))
    f_b, text = random(3, 6, height, width), random(classes, 10, seed=1)
    expected, found = reference(stage, f_b, text, k), stage(f_b, text)
    assert found.experts.tolist() == expected.experts.tolist()
    close(found.weights, expected.weights, 1e-5)
    close(found.probabilities, expected.probabilities, 1e-5)
    close(found.expert_text, expected.expert_text, 1e-10)


@torch.no_grad()
def test_a_lower_temperature_sharpens_and_chooses_the_same() -> None:
    stage = randomised(AttentionGating(width=6, text_width=10, experts=7, top_k=2))
    f_b, text = random(3, 6, 4, 4), random(4, 10, seed=1)
    stage.log_tau.fill_(1.0)
    blunt = stage(f_b, text)
    stage.log_tau.fill_(-3.0)
    sharp = stage(f_b, text)
    assert sharp.experts.tolist() == blunt.experts.tolist()
    assert (sharp.probabilities.amax(-1) > blunt.probabilities.amax(-1)).all()


@torch.no_grad()
def test_images_that_are_nearly_the_same_still_go_to_experts_of_their_own() -> None:
    """What all have in common must not decide: else every expert gets 1 / N_e of every image."""
    torch.manual_seed(0)
    stage = AttentionGating(width=6, text_width=10, experts=8, top_k=2).double()
    common, text = random(1, 6, 4, 4) * 10, random(4, 10, seed=1)
    images = [common + random(8, 6, 4, 4, seed=step) for step in range(60)]
    for f_b in images:
        stage(f_b, text)
    found = stage.eval()(torch.cat(images), text).probabilities
    assert spread(found) > 0.1
    stage.unit = False
    stage.log_tau.fill_(0.0)
    assert spread(stage(torch.cat(images), text).probabilities) < 0.01  # what it mends


def spread(probabilities: Tensor) -> float:
    """Mean over the experts of the standard deviation over the images, as a share of 1 / N_e."""
    return float(probabilities.std(0).mean() * probabilities.shape[1])


@torch.no_grad()
def test_training_brings_every_expert_its_share_and_leaves_the_weights_to_the_router() -> None:
    torch.manual_seed(0)
    stage = AttentionGating(width=6, text_width=10, experts=8, top_k=2).double()
    text, images = random(4, 10, seed=1), random(400, 6, 4, 4, seed=2)
    before = shares(stage.eval()(images, text))
    for _ in range(400):
        stage.train()(images[torch.randperm(400)[:16]], text)
    after = stage.eval()(images, text)
    assert (shares(after) - 1 / 8).abs().max() < 0.25 * (before - 1 / 8).abs().max()
    close(after.weights, F.normalize(after.probabilities.gather(1, after.experts), p=1).double(), 1e-6)
    assert (after.weights.diff(dim=1) <= 0).all()  # best first


@torch.no_grad()
def test_to_the_letter_nobody_is_handicapped() -> None:
    stage = randomised(AttentionGating(width=6, text_width=10, experts=7, top_k=2, level=False)).train()
    before = stage.load_bias.clone()
    stage(random(3, 6, 4, 4), random(4, 10, seed=1))
    assert torch.equal(stage.load_bias, before)


def shares(routed: GatingOutput) -> Tensor:
    """Share of all choices that each expert got."""
    experts = routed.probabilities.shape[1]
    return F.one_hot(routed.experts, experts).double().mean((0, 1))


@torch.no_grad()
def test_looking_changes_nothing_and_training_follows() -> None:
    stage = randomised(AttentionGating(width=6, text_width=10, experts=7, top_k=2))
    f_b, text = random(3, 6, 4, 4), random(4, 10, seed=1)
    before = {name: value.clone() for name, value in stage.named_buffers()}
    stage.eval()(f_b, text)
    assert all(torch.equal(value, before[name]) for name, value in stage.named_buffers())
    stage.train()(f_b, text)
    assert all(not torch.equal(value, before[name]) for name, value in stage.named_buffers())
