"""Tests of Muon: orthogonalised steps for matrices, AdamW steps for other weights, and restored state."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

from dsmoe_core.checkpoint import optimizer_tensors, restore_optimizer
from dsmoe_core.training.muon import LARGE, MOMENTUM, Muon, orthogonal


@given(st.integers(16, 40), st.integers(16, 80), st.integers(0, 1000))
def test_orthogonal_brings_singular_values_close_to_one_and_keeps_singular_vectors(
    rows: int, columns: int, seed: int
) -> None:
    matrix = torch.randn(1, rows, columns, generator=torch.Generator().manual_seed(seed))
    left, values, right = torch.linalg.svd(matrix[0], full_matrices=False)
    result = left.T @ orthogonal(matrix)[0] @ right.T
    small = values < 0.02 * values.norm()  # five iterations do not bring these close to one
    assert ((result.diag() > 0.3) & (result.diag() < 1.3))[~small].all()
    assert (result - result.diag().diag()).abs().max() < 0.05


def test_matrices_of_a_batch_are_orthogonalised_independently() -> None:
    matrices = torch.randn(3, 20, 30, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [1e-4, 1.0, 1e4]
    ).view(3, 1, 1)
    batched = orthogonal(matrices)
    for matrix, result in zip(matrices, batched, strict=True):
        torch.testing.assert_close(orthogonal(matrix[None])[0], result, rtol=1e-4, atol=1e-5)


def test_a_zero_matrix_stays_zero() -> None:
    assert not orthogonal(torch.zeros(2, 16, 16)).any()


def _after_steps(
    weight: Tensor, gradients: list[Tensor], large_dtype: torch.dtype = torch.float32, **group: float
) -> tuple[Tensor, Muon]:
    parameter = nn.Parameter(weight.clone())
    groups = [{"params": [parameter], "lr": 0.1, "weight_decay": 0.0, **group}]
    optimizer = Muon(groups, large_dtype=large_dtype)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach(), optimizer


@pytest.mark.parametrize("shape", [(32, 16), (16, 32), (16, 4, 3, 3)])
def test_two_steps_equal_the_update_rule(shape: tuple[int, ...]) -> None:
    """The rule: Nesterov momentum, orthogonalisation, and a larger step for tall matrices."""
    generator = torch.Generator().manual_seed(1)
    weight, *gradients = (torch.randn(shape, generator=generator) for _ in range(3))
    moved, _ = _after_steps(weight, gradients, matrix_rate=3.0, weight_decay=0.5)
    expected, mean = weight.clone(), torch.zeros(shape)
    tall = max(1.0, shape[0] / weight[0].numel()) ** 0.5
    for gradient in gradients:
        mean = MOMENTUM * mean + (1 - MOMENTUM) * gradient
        ahead = MOMENTUM * mean + (1 - MOMENTUM) * gradient
        step = orthogonal(ahead.flatten(1)[None])[0].view(shape)
        expected = expected * (1 - 0.1 * 0.5) - 0.1 * 3.0 * tall * step
    torch.testing.assert_close(moved, expected)


def test_the_scale_of_the_gradient_has_no_effect() -> None:
    generator = torch.Generator().manual_seed(1)
    weight, gradient = (torch.randn(16, 16, generator=generator) for _ in range(2))
    large, _ = _after_steps(weight, [gradient * 1e3], matrix_rate=1.0)
    small, _ = _after_steps(weight, [gradient * 1e-3], matrix_rate=1.0)
    torch.testing.assert_close(large, small, rtol=1e-3, atol=1e-4)


def test_weights_without_matrix_rate_are_updated_by_adamw() -> None:
    generator = torch.Generator().manual_seed(1)
    weight, *gradients = (torch.randn(16, 16, generator=generator) for _ in range(4))
    moved, _ = _after_steps(weight, gradients, matrix_rate=0.0)
    parameter = nn.Parameter(weight.clone())
    adamw = torch.optim.AdamW([parameter], lr=0.1, weight_decay=0.0)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        adamw.step()
    assert torch.equal(moved, parameter.detach())


def test_large_dtype_applies_to_large_matrices_only() -> None:
    generator = torch.Generator().manual_seed(1)
    for side, equal in ((LARGE - 1, True), (LARGE, False)):
        weight, gradient = (torch.randn(side, 2 * LARGE, generator=generator) for _ in range(2))
        exact, _ = _after_steps(weight, [gradient], matrix_rate=1.0)
        approximate, _ = _after_steps(weight, [gradient], torch.bfloat16, matrix_rate=1.0)
        assert torch.equal(exact, approximate) is equal
        steps = (exact - weight).flatten(), (approximate - weight).flatten()
        assert torch.nn.functional.cosine_similarity(*steps, dim=0) > 0.999
        assert approximate.dtype == torch.float32


def test_a_weight_without_a_gradient_is_unchanged() -> None:
    weight = nn.Parameter(torch.ones(16, 16))
    Muon([{"params": [weight], "lr": 0.1, "matrix_rate": 1.0}]).step()
    assert torch.equal(weight.detach(), torch.ones(16, 16))


def test_the_memory_format_has_no_effect() -> None:
    generator = torch.Generator().manual_seed(1)
    weight, gradient = (torch.randn(16, 8, 3, 3, generator=generator) for _ in range(2))
    plain, _ = _after_steps(weight, [gradient, gradient], matrix_rate=1.0)
    channels_last = weight.contiguous(memory_format=torch.channels_last)
    gradients = [gradient.contiguous(memory_format=torch.channels_last)] * 2
    other, _ = _after_steps(channels_last, gradients, matrix_rate=1.0)
    torch.testing.assert_close(plain, other)


def test_a_restored_optimizer_continues_with_the_same_steps() -> None:
    generator = torch.Generator().manual_seed(1)
    weight, *gradients = (torch.randn(16, 16, generator=generator) for _ in range(4))
    uninterrupted, _ = _after_steps(weight, gradients, matrix_rate=1.0)
    half, optimizer = _after_steps(weight, gradients[:2], matrix_rate=1.0)
    parameter = nn.Parameter(half.clone())
    resumed = Muon([{"params": [parameter], "lr": 0.1, "weight_decay": 0.0, "matrix_rate": 1.0}])
    restore_optimizer(resumed, optimizer_tensors(optimizer))
    for gradient in gradients[2:]:
        parameter.grad = gradient.clone()
        resumed.step()
    assert torch.equal(parameter.detach(), uninterrupted)
