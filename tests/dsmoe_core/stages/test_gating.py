"""Stage 7 against eq. 20: expert by expert, then the k best of every picture."""

from __future__ import annotations

import copy

import pytest
import torch
from references import close, linear, random, stirred
from torch import Tensor

from dsmoe_core.signals import Gated
from dsmoe_core.stages.gating import AttentionGating


def projector(x: Tensor, layers: torch.nn.Sequential) -> Tensor:
    """Two hidden layers with SiLU, then a linear one."""
    for i in (0, 2):
        x = linear(x, layers[i])
        x = x * torch.sigmoid(x)
    return linear(x, layers[4])


def reference(stage: AttentionGating, f_b: Tensor, text: Tensor, k: int) -> Gated:
    """Eq. 20, with what the stage's docstring says of lengths (``unit``) and sums (``share``)."""
    stage = copy.deepcopy(stage).double()
    count, tau = len(stage.queries), torch.exp(stage.log_tau)
    expert_text, probabilities = (
        torch.zeros(count, text.shape[1]).double(),
        torch.zeros(len(f_b), count).double(),
    )
    for e in range(count):
        strength = torch.exp(text @ stage.queries[e] / text.shape[1] ** 0.5)
        expert_text[e] = sum(s * row for s, row in zip(strength / strength.sum(), text, strict=True))
    for b, picture in enumerate(f_b):
        cells = projector(picture.flatten(1).T, stage.image)
        seen = cells.mean(0)
        for e in range(count):
            read = projector(torch.cat([expert_text[e], stage.queries[e]]), stage.text)
            lengths = seen.norm() * read.norm() if stage.unit else 1.0
            probabilities[b, e] = torch.exp(seen.dot(read) / lengths / tau)
        probabilities[b] /= probabilities[b].sum()
    chosen = torch.zeros(len(f_b), k, dtype=torch.long)
    weights = torch.zeros(len(f_b), k, dtype=torch.float64)
    for b, row in enumerate(probabilities):
        best = sorted(range(count), key=lambda e, row=row: -float(row[e]))[:k]
        chosen[b] = torch.tensor(best)
        weights[b] = row[best] / (sum(row[e] for e in best) if stage.share else 1.0)
    return Gated(chosen, weights, probabilities, expert_text)


@torch.no_grad()
@pytest.mark.parametrize("k", [1, 3, 7])
@pytest.mark.parametrize(("unit", "share"), [(True, True), (False, True), (True, False)])
@pytest.mark.parametrize(("classes", "height", "width"), [(1, 3, 5), (4, 5, 3)])
def test_equals_the_equation(k: int, classes: int, height: int, width: int, unit: bool, share: bool) -> None:
    stage = stirred(AttentionGating(width=6, text_width=10, experts=7, top_k=k, unit=unit, share=share))
    f_b, text = random(3, 6, height, width), random(classes, 10, seed=1)
    expected, found = reference(stage, f_b, text, k), stage(f_b, text)
    assert found.experts.tolist() == expected.experts.tolist()
    close(found.weights, expected.weights, 1e-5)
    close(found.probabilities, expected.probabilities, 1e-5)
    close(found.expert_text, expected.expert_text, 1e-10)


@torch.no_grad()
def test_a_lower_temperature_sharpens_and_chooses_the_same() -> None:
    stage = stirred(AttentionGating(width=6, text_width=10, experts=7, top_k=2))
    f_b, text = random(3, 6, 4, 4), random(4, 10, seed=1)
    stage.log_tau.fill_(1.0)
    blunt = stage(f_b, text)
    stage.log_tau.fill_(-3.0)
    sharp = stage(f_b, text)
    assert sharp.experts.tolist() == blunt.experts.tolist()
    assert (sharp.probabilities.amax(-1) > blunt.probabilities.amax(-1)).all()
