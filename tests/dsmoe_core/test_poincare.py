"""Tests of the Poincare ball against its formulas and geoopt: at the origin, at the boundary and outside."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dsmoe_core import poincare

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # its own use of torch.jit.script
    import geoopt

INSIDE = st.sampled_from([0.0, 1e-12, 1e-6, 0.1, 0.9, 1 - 1e-3, 1 - 1e-7])
ANYWHERE = st.one_of(INSIDE, st.sampled_from([1.0, 1 + 1e-7, 3.0, 1e18]), st.floats(0, 5))
SEEDS = st.integers(0, 99)
PRECISIONS = st.sampled_from([torch.float32, torch.float64])


def point(norm: float, seed: int, size: int = 5) -> Tensor:
    direction = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return direction / direction.norm() * norm


@given(norm=st.floats(0, 5), seed=SEEDS)
def test_log0_is_the_inverse_of_exp0(norm: float, seed: int) -> None:
    v = point(norm, seed)
    torch.testing.assert_close(poincare.log0(poincare.exp0(v)), v, atol=1e-7, rtol=1e-7)


@given(norm=st.floats(0, 0.999), seed=SEEDS)
def test_exp0_is_the_inverse_of_log0(norm: float, seed: int) -> None:
    x = point(norm, seed)
    torch.testing.assert_close(poincare.exp0(poincare.log0(x)), x, atol=1e-10, rtol=1e-10)


@given(norm=st.floats(0, 2), seed=SEEDS)
def test_single_precision_is_accurate_to_four_digits(norm: float, seed: int) -> None:
    v = point(norm, seed).float()
    torch.testing.assert_close(poincare.log0(poincare.exp0(v)), v, atol=1e-6, rtol=1e-4)


@given(a=INSIDE, b=INSIDE, seed=SEEDS)
def test_distance_equals_the_arcosh_of_eq_12(a: float, b: float, seed: int) -> None:
    x, y = poincare.clamp(point(a, seed)), poincare.clamp(point(b, seed + 100))
    gap = (x - y).square().sum()
    inner = 1 + 2 * gap / ((1 - x.square().sum()) * (1 - y.square().sum()))
    torch.testing.assert_close(poincare.distance(x, y), torch.acosh(inner), atol=1e-6, rtol=1e-6)


@given(norm=st.floats(0, 1 - 2 * poincare.BOUNDARY_MARGIN), seed=SEEDS)
def test_distance_from_the_origin_and_to_itself(norm: float, seed: int) -> None:
    x = point(norm, seed)
    expected = 2 * torch.atanh(x.norm())
    torch.testing.assert_close(poincare.distance(torch.zeros_like(x), x), expected, atol=1e-9, rtol=1e-9)
    for precision in (x, x.float()):
        assert poincare.distance(precision, precision) < 1e-9


@given(a=INSIDE, b=INSIDE, seed=SEEDS)
def test_distance_equals_the_length_of_log(a: float, b: float, seed: int) -> None:
    """The length of Log_x(y) in the metric at x is d_H(x, y)."""
    x, y = poincare.clamp(point(min(a, 0.99), seed)), poincare.clamp(point(min(b, 0.99), seed + 100))
    conformal = 2 / (1 - x.square().sum())
    torch.testing.assert_close(
        conformal * poincare.log(x, y).norm(), poincare.distance(x, y), atol=1e-6, rtol=1e-5
    )


@given(a=ANYWHERE, b=ANYWHERE, c=ANYWHERE, seed=SEEDS)
def test_triangle_inequality_and_symmetry(a: float, b: float, c: float, seed: int) -> None:
    x, y, z = (point(n, seed + k) for k, n in enumerate((a, b, c)))
    assert poincare.distance(x, z) <= poincare.distance(x, y) + poincare.distance(y, z) + 1e-9
    torch.testing.assert_close(poincare.distance(x, y), poincare.distance(y, x))


@given(a=st.floats(0, 3), b=st.floats(0, 3), size=st.integers(1, 8), seed=SEEDS)
def test_functions_equal_those_of_geoopt(a: float, b: float, size: int, seed: int) -> None:
    """For curvature -1, geoopt has the same Exp_0, tanh(|v|) v / |v|, without a factor of two."""
    ball = geoopt.PoincareBallExact(c=1.0)
    v, w = point(a, seed, size), point(b, seed + 100, size)
    x, y = poincare.exp0(v), poincare.exp0(w)
    pairs = {
        "exp0": (x, ball.expmap0(v)),
        "log0": (poincare.log0(y), ball.logmap0(y)),
        "mobius_add": (poincare.mobius_add(x, y), ball.mobius_add(x, y)),
        "log": (poincare.log(x, y), ball.logmap(x, y)),
        "distance": (poincare.distance(x, y), ball.dist(x, y)),
    }
    for name, (actual, expected) in pairs.items():
        torch.testing.assert_close(
            actual, expected, atol=1e-7, rtol=1e-6, msg=lambda m, name=name: f"{name}: {m}"
        )


@given(a=ANYWHERE, b=ANYWHERE, seed=SEEDS, turned=st.sampled_from([1, -1, None]), precision=PRECISIONS)
def test_at_every_edge_points_stay_inside_and_nothing_is_nan(
    a: float, b: float, seed: int, turned: int | None, precision: torch.dtype
) -> None:
    """Two points in any two directions, or on one line through the middle, on one side or on both."""
    x = point(a, seed).to(precision).requires_grad_()
    y = (point(b, seed + 100) if turned is None else point(b, seed) * turned).to(precision).requires_grad_()
    inner = poincare.clamp(x), poincare.clamp(y)
    points = [*inner, poincare.exp0(x), poincare.project(x), poincare.mobius_add(*inner)]
    tangents = [poincare.log0(x), poincare.log(x, y), poincare.log(y, x)]
    assert all(p.norm() < 1 for p in points)
    distance = poincare.distance(x, y)
    assert 0 <= distance < 50
    for out in (*points, *tangents, distance):
        assert out.isfinite().all()
        gradients = torch.autograd.grad(
            (out * torch.arange(1, out.numel() + 1).view(out.shape)).sum(),
            (x, y),
            retain_graph=True,
            allow_unused=True,
        )
        assert all(g is None or g.isfinite().all() for g in gradients)


@given(norm=st.floats(1, 1e18), seed=SEEDS)
def test_points_outside_the_ball_are_clamped_along_their_radius(norm: float, seed: int) -> None:
    inside = point(1 - poincare.BOUNDARY_MARGIN, seed)
    torch.testing.assert_close(poincare.clamp(point(norm, seed)), inside, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("norm", [1e-3, 0.3, 0.9])
@pytest.mark.parametrize("seed", [3, 4])
def test_gradients_are_correct(norm: float, seed: int) -> None:
    x, y = point(norm, seed).requires_grad_(), point(0.4, seed + 10).requires_grad_()
    for function in (poincare.exp0, poincare.log0, poincare.project):
        assert torch.autograd.gradcheck(function, (x,))
    for function in (poincare.log, poincare.distance, poincare.mobius_add):
        assert torch.autograd.gradcheck(function, (x, y))
        assert torch.autograd.gradcheck(function, (y, x))


def test_jacobian_at_the_origin_is_the_identity() -> None:
    """At exactly zero the formulas divide zero by zero."""
    origin = torch.zeros(5, dtype=torch.float64)
    for function in (poincare.exp0, poincare.log0, poincare.project):
        jacobian = torch.autograd.functional.jacobian(function, origin)
        torch.testing.assert_close(jacobian, torch.eye(5, dtype=torch.float64))


def test_half_precision_is_refused() -> None:
    with pytest.raises(TypeError, match="bfloat16"):
        poincare.exp0(torch.zeros(3, dtype=torch.bfloat16))
