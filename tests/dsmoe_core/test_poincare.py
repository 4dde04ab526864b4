"""The ball against its formulas, at its middle and at its rim."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dsmoe_core import poincare

NORMS = st.sampled_from([0.0, 1e-12, 1e-6, 0.1, 0.9, 1 - 1e-3, 1 - 1e-7])


def point(norm: float, seed: int, size: int = 5) -> torch.Tensor:
    direction = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return direction / direction.norm() * norm


@given(norm=st.floats(0, 5), seed=st.integers(0, 99))
def test_log0_undoes_exp0(norm: float, seed: int) -> None:
    v = point(norm, seed)
    torch.testing.assert_close(poincare.log0(poincare.exp0(v)), v, atol=1e-7, rtol=1e-7)


@given(a=NORMS, b=NORMS, seed=st.integers(0, 99))
def test_distance_is_the_paper_s_arcosh(a: float, b: float, seed: int) -> None:
    x, y = poincare.clamp(point(a, seed)), poincare.clamp(point(b, seed + 100))
    gap = (x - y).square().sum()
    inner = 1 + 2 * gap / ((1 - x.square().sum()) * (1 - y.square().sum()))
    torch.testing.assert_close(poincare.distance(x, y), torch.acosh(inner), atol=1e-6, rtol=1e-6)


@given(a=NORMS, b=NORMS, seed=st.integers(0, 99))
def test_distance_and_log_agree(a: float, b: float, seed: int) -> None:
    """|Log_x(y)| in the metric at x is d_H(x, y)."""
    x, y = poincare.clamp(point(min(a, 0.99), seed)), poincare.clamp(point(min(b, 0.99), seed + 100))
    conformal = 2 / (1 - x.square().sum())
    torch.testing.assert_close(
        conformal * poincare.log(x, y).norm(), poincare.distance(x, y), atol=1e-6, rtol=1e-5
    )


@given(a=NORMS, b=NORMS, c=NORMS, seed=st.integers(0, 99))
def test_triangle_inequality_and_symmetry(a: float, b: float, c: float, seed: int) -> None:
    x, y, z = (point(n, seed + k) for k, n in enumerate((a, b, c)))
    assert poincare.distance(x, z) <= poincare.distance(x, y) + poincare.distance(y, z) + 1e-9
    torch.testing.assert_close(poincare.distance(x, y), poincare.distance(y, x))


@pytest.mark.parametrize("norm", [0.0, 1e-12, 1 - 1e-7, 1.0, 30.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_value_and_no_gradient_is_nan(norm: float, dtype: torch.dtype) -> None:
    v = point(norm, 1).to(dtype).requires_grad_()
    w = point(0.5, 2).to(dtype)
    out = [poincare.exp0(v), poincare.project(v), poincare.log0(v), poincare.log(w, v), poincare.log(v, w)]
    total = sum(o.sum() for o in out) + poincare.distance(v, w) + poincare.distance(v, v)
    total.backward()
    assert torch.isfinite(total)
    assert v.grad is not None
    assert torch.isfinite(v.grad).all()


@pytest.mark.parametrize("norm", [1e-3, 0.3, 0.9])
def test_gradients_are_right(norm: float) -> None:
    x, y = point(norm, 3).requires_grad_(), point(0.4, 4).requires_grad_()
    assert torch.autograd.gradcheck(poincare.exp0, (x,))
    assert torch.autograd.gradcheck(poincare.log0, (x,))
    assert torch.autograd.gradcheck(poincare.log, (y, x))
    assert torch.autograd.gradcheck(poincare.distance, (x, y))


def test_half_precision_is_refused() -> None:
    with pytest.raises(TypeError, match="bfloat16; expected float32"):
        poincare.exp0(torch.zeros(3, dtype=torch.bfloat16))
