"""Tests of stage 2 against eq. 2, with attention computed in loops over heads and pairs of classes."""

from __future__ import annotations

import pytest
import torch
from references import close, random, randomised
from torch import Tensor

from dsmoe_core.stages.distillation import SemanticDistillation


def projected(stage: SemanticDistillation, which: int, x: Tensor) -> Tensor:
    """Compute the queries (``which`` = 0), keys (1) or values (2)."""
    rows = slice(which * x.shape[-1], (which + 1) * x.shape[-1])
    return x @ stage.attention.in_proj_weight[rows].T + stage.attention.in_proj_bias[rows]


def reference(stage: SemanticDistillation, text: Tensor, classes: Tensor, heads: int) -> Tensor:
    """Compute LayerNorm(T + MHA(T, T, T))."""
    width = text.shape[-1]
    depth = width // heads
    query, key, value = (projected(stage, i, t) for i, t in enumerate((text, classes, classes)))
    attended = torch.zeros_like(text)
    for i in range(len(text)):
        for head in range(heads):
            own = slice(head * depth, (head + 1) * depth)
            weights = [torch.exp(query[i, own] @ key[j, own] / depth**0.5) for j in range(len(classes))]
            for j, weight in enumerate(weights):
                attended[i, own] += weight / sum(weights) * value[j, own]
    out = text + attended @ stage.attention.out_proj.weight.T + stage.attention.out_proj.bias
    centred = out - out.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return centred / scale * stage.norm.weight + stage.norm.bias


@torch.no_grad()
@pytest.mark.parametrize(("classes", "width", "heads"), [(1, 8, 8), (5, 16, 8), (7, 12, 3)])
def test_output_is_the_layer_norm_of_text_plus_attention(classes: int, width: int, heads: int) -> None:
    stage = randomised(SemanticDistillation(width=width, heads=heads))
    text, inner = random(classes, width), random(3, width, seed=1)
    close(stage(text, text).text, reference(stage, text, text, heads), 1e-9)
    close(stage(inner, text).text, reference(stage, inner, text, heads), 1e-9)


@torch.no_grad()
@pytest.mark.parametrize("classes", [1, 2, 6])
def test_value_overlap_is_the_mean_square_cosine_over_pairs_of_classes(classes: int) -> None:
    stage = randomised(SemanticDistillation(width=16, heads=8))
    text = random(classes, 16)
    values = projected(stage, 2, text)
    squares = [
        (values[i] @ values[j] / (values[i].norm() * values[j].norm())) ** 2
        for i in range(classes)
        for j in range(classes)
        if i != j
    ]
    expected = torch.stack(squares).mean() if squares else torch.zeros((), dtype=torch.float64)
    close(stage(text, text).value_overlap, expected, 1e-6)
    close(stage(random(2, 16, seed=1), text).value_overlap, expected, 1e-6)


def test_value_overlap_of_orthogonal_values_is_zero() -> None:
    stage = SemanticDistillation(width=8, heads=2)
    with torch.no_grad():
        stage.attention.in_proj_weight[16:] = torch.eye(8)
        stage.attention.in_proj_bias.zero_()
    assert stage(torch.eye(8), torch.eye(8)).value_overlap == 0
