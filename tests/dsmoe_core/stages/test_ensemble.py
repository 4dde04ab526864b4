"""Tests of stage 9 against eq. 25, with the dilated columns computed per tap."""

from __future__ import annotations

import pytest
import torch
from references import (
    aligned,
    close,
    convolved,
    gated,
    linear,
    normed,
    pointwise,
    random,
    randomised,
    same,
    spread,
)
from torch import Tensor

from dsmoe_core.outputs import AlignmentOutput, GatingOutput
from dsmoe_core.stages.ensemble import HeterogeneousEnsemble


def columns(stage: HeterogeneousEnsemble, f_g: Tensor) -> Tensor:
    """Compute sum_k D_k(F_g) * K_{k x 1}: k taps per column, k rows apart."""
    total = torch.zeros_like(f_g)
    for k, block in enumerate(stage.columns, start=1):
        kernel = block[1].weight
        assert kernel.shape[2:] == (k, 1)
        total += convolved(f_g, kernel, top=(k - 1) // 2 * k, left=0, rows=k)
    return total


def reference(
    stage: HeterogeneousEnsemble,
    f_b: Tensor,
    text: Tensor,
    a: AlignmentOutput,
    g: GatingOutput,
    *,
    summed: bool,
) -> Tensor:
    f_g = f_b * torch.sigmoid(pointwise(g.probabilities, stage.gate))
    text_features = linear(text, stage.text_projection)
    features = torch.cat([f_b, spread(a, text_features.expand(len(f_b), -1, -1))], dim=1)
    textual = normed(same(pointwise(features, stage.textual[0]), stage.textual[1]), stage.textual[2])
    column = columns(stage, f_g)
    joined = column + textual if summed else torch.cat([column, textual], dim=1)
    out = normed(pointwise(joined, stage.project[0]), stage.project[1])
    return out * torch.sigmoid(out)


@torch.no_grad()
@pytest.mark.parametrize("summed", [False, True])
@pytest.mark.parametrize(("classes", "height", "width"), [(1, 5, 7), (4, 9, 4), (3, 1, 2)])
def test_output_equals_the_equation(classes: int, height: int, width: int, summed: bool) -> None:
    stage = randomised(
        HeterogeneousEnsemble(width=8, text_width=10, text_channels=4, experts=6, summed=summed)
    )
    f_b, text = random(2, 8, height, width), random(classes, 10, seed=1)
    a = aligned(2, classes, 4, height, width)
    for g in (gated(2, 6, 2, 10), gated(2, 6, 2, 10, height, width)):  # per image, and per position
        close(stage(f_b, text, a, g), reference(stage, f_b, text, a, g, summed=summed), 1e-10)


def test_router_gets_gradients_from_experts_that_were_not_selected() -> None:
    stage = randomised(HeterogeneousEnsemble(width=8, text_width=10, text_channels=4, experts=6))
    a, g = aligned(2, 3, 4, 4, 4), gated(2, 6, 1, 10)
    probabilities = g.probabilities.clone().requires_grad_()
    stage(random(2, 8, 4, 4), random(3, 10), a, g._replace(probabilities=probabilities)).sum().backward()
    assert probabilities.grad is not None
    assert (probabilities.grad != 0).all()
