"""Muon: orthogonal steps for matrices, AdamW's for the rest, and a state that comes back."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

from dsmoe_core.checkpoint import optimizer_tensors, restore_optimizer
from dsmoe_core.training.muon import LARGE, MOMENTUM, Muon, orthogonal


@given(st.integers(16, 40), st.integers(16, 80), st.integers(0, 1000))
def test_singular_values_become_about_one_and_directions_stay(rows: int, columns: int, seed: int) -> None:
    matrix = torch.randn(1, rows, columns, generator=torch.Generator().manual_seed(seed))
    left, values, right = torch.linalg.svd(matrix[0], full_matrices=False)
    made = left.T @ orthogonal(matrix)[0] @ right.T
    small = values < 0.02 * values.norm()  # which five steps do not lift all the way
    assert ((made.diag() > 0.3) & (made.diag() < 1.3))[~small].all()
    assert (made - made.diag().diag()).abs().max() < 0.05


def test_matrices_side_by_side_are_each_made_orthogonal() -> None:
    matrices = torch.randn(3, 20, 30, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [1e-4, 1.0, 1e4]
    ).view(3, 1, 1)
    together = orthogonal(matrices)
    for matrix, made in zip(matrices, together, strict=True):
        torch.testing.assert_close(orthogonal(matrix[None])[0], made, rtol=1e-4, atol=1e-5)


def test_nothing_stays_nothing() -> None:
    assert not orthogonal(torch.zeros(2, 16, 16)).any()


def _moved(
    weight: Tensor, gradients: list[Tensor], large_in: torch.dtype = torch.float32, **group: float
) -> tuple[Tensor, Muon]:
    parameter = nn.Parameter(weight.clone())
    groups = [{"params": [parameter], "lr": 0.1, "weight_decay": 0.0, **group}]
    optimizer = Muon(groups, large_in=large_in)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach(), optimizer


@pytest.mark.parametrize("shape", [(32, 16), (16, 32), (16, 4, 3, 3)])
def test_a_step_is_the_definition(shape: tuple[int, ...]) -> None:
    """Against the rule written out, two steps: Nesterov momentum, orthogonal, taller matrices further."""
    draw = torch.Generator().manual_seed(1)
    weight, *gradients = (torch.randn(shape, generator=draw) for _ in range(3))
    moved, _ = _moved(weight, gradients, matrix_rate=3.0, weight_decay=0.5)
    expected, mean = weight.clone(), torch.zeros(shape)
    tall = max(1.0, shape[0] / weight[0].numel()) ** 0.5
    for gradient in gradients:
        mean = MOMENTUM * mean + (1 - MOMENTUM) * gradient
        ahead = MOMENTUM * mean + (1 - MOMENTUM) * gradient
        step = orthogonal(ahead.flatten(1)[None])[0].view(shape)
        expected = expected * (1 - 0.1 * 0.5) - 0.1 * 3.0 * tall * step
    torch.testing.assert_close(moved, expected)


def test_the_size_of_the_gradient_does_not_matter() -> None:
    draw = torch.Generator().manual_seed(1)
    weight, gradient = (torch.randn(16, 16, generator=draw) for _ in range(2))
    loud, _ = _moved(weight, [gradient * 1e3], matrix_rate=1.0)
    quiet, _ = _moved(weight, [gradient * 1e-3], matrix_rate=1.0)
    torch.testing.assert_close(loud, quiet, rtol=1e-3, atol=1e-4)


def test_other_weights_move_as_by_adamw() -> None:
    draw = torch.Generator().manual_seed(1)
    weight, *gradients = (torch.randn(16, 16, generator=draw) for _ in range(4))
    moved, _ = _moved(weight, gradients, matrix_rate=0.0)
    parameter = nn.Parameter(weight.clone())
    adamw = torch.optim.AdamW([parameter], lr=0.1, weight_decay=0.0)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        adamw.step()
    assert torch.equal(moved, parameter.detach())


def test_large_matrices_are_found_in_bf16_and_small_ones_as_exactly_as_before() -> None:
    draw = torch.Generator().manual_seed(1)
    for side, alike in ((LARGE - 1, True), (LARGE, False)):
        weight, gradient = (torch.randn(side, 2 * LARGE, generator=draw) for _ in range(2))
        exact, _ = _moved(weight, [gradient], matrix_rate=1.0)
        rough, _ = _moved(weight, [gradient], torch.bfloat16, matrix_rate=1.0)
        assert torch.equal(exact, rough) is alike
        steps = (exact - weight).flatten(), (rough - weight).flatten()
        assert torch.nn.functional.cosine_similarity(*steps, dim=0) > 0.999
        assert rough.dtype == torch.float32


def test_a_weight_without_a_gradient_stays() -> None:
    weight = nn.Parameter(torch.ones(16, 16))
    Muon([{"params": [weight], "lr": 0.1, "matrix_rate": 1.0}]).step()
    assert torch.equal(weight.detach(), torch.ones(16, 16))


def test_a_memory_format_changes_nothing() -> None:
    draw = torch.Generator().manual_seed(1)
    weight, gradient = (torch.randn(16, 8, 3, 3, generator=draw) for _ in range(2))
    plain, _ = _moved(weight, [gradient, gradient], matrix_rate=1.0)
    last = weight.contiguous(memory_format=torch.channels_last)
    other, _ = _moved(last, [gradient.contiguous(memory_format=torch.channels_last)] * 2, matrix_rate=1.0)
    torch.testing.assert_close(plain, other)


def test_its_state_comes_back() -> None:
    draw = torch.Generator().manual_seed(1)
    weight, *gradients = (torch.randn(16, 16, generator=draw) for _ in range(4))
    through, _ = _moved(weight, gradients, matrix_rate=1.0)
    half, optimizer = _moved(weight, gradients[:2], matrix_rate=1.0)
    kept = optimizer_tensors(optimizer)
    parameter = nn.Parameter(half.clone())
    again = Muon([{"params": [parameter], "lr": 0.1, "weight_decay": 0.0, "matrix_rate": 1.0}])
    restore_optimizer(again, kept)
    for gradient in gradients[2:]:
        parameter.grad = gradient.clone()
        again.step()
    assert torch.equal(parameter.detach(), through)
