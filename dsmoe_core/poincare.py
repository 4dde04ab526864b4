"""Operations in the Poincare ball D^n = {x : |x| < 1} of curvature -1, in fp32 or fp64.

All functions take and return points or tangent vectors in the last axis. They stay finite, with finite
gradients, at the origin and at the boundary. Half precision is refused, because it cannot tell 1 from
1 - 1e-3 near the boundary. Formulas: Ganea, Becigneul, Hofmann, "Hyperbolic neural networks" (2018), with the
paper's ``Exp_0(v) = tanh(|v|) v / |v|`` (eq. 9), which equals theirs for curvature -1.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

BOUNDARY_MARGIN = 1e-5
"""Points are clamped to |x| <= 1 - BOUNDARY_MARGIN."""
TINY = 1e-12


def _norm(x: Float[Tensor, "*s n"]) -> Float[Tensor, "*s 1"]:
    """Compute the norm, with gradient 0 instead of NaN at the origin."""
    return x.square().sum(-1, keepdim=True).clamp_min(TINY**2).sqrt()


def _artanh(norm: Float[Tensor, "*s 1"]) -> Float[Tensor, "*s 1"]:
    """Compute artanh of a norm, at most that of the boundary.

    The clamp is of 1 - |x| and not of |x|: a runtime that computes in bf16 rounds 1 - BOUNDARY_MARGIN to 1,
    where artanh is infinite.
    """
    return torch.log1p(2 * norm / (1 - norm).clamp_min(BOUNDARY_MARGIN)) / 2


def _require_full_precision(x: Tensor) -> Tensor:
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"Poincare ball got {x.dtype}; expected float32 or float64. Cast before the call.")
    return x


def clamp(x: Float[Tensor, "*s n"]) -> Float[Tensor, "*s n"]:
    """Project points outside the ball, for example after rounding, to |x| = 1 - BOUNDARY_MARGIN."""
    norm = _norm(_require_full_precision(x))
    return torch.where(norm > 1 - BOUNDARY_MARGIN, x / norm * (1 - BOUNDARY_MARGIN), x)


def exp0(v: Float[Tensor, "*s n"]) -> Float[Tensor, "*s n"]:
    """Compute Exp_0 (eq. 9): maps a tangent vector at the origin to a point; the limit at v = 0 is v."""
    norm = _norm(_require_full_precision(v))
    return clamp(torch.tanh(norm) / norm * v)


def log0(x: Float[Tensor, "*s n"]) -> Float[Tensor, "*s n"]:
    """Compute Log_0, the inverse of :func:`exp0`; the limit at x = 0 is x."""
    x = clamp(x)
    norm = _norm(x)
    return _artanh(norm) / norm * x


def project(x: Float[Tensor, "*s n"]) -> Float[Tensor, "*s n"]:
    """Compute Proj(x) = x / (1 + |x|) (eq. 10): maps any vector into the open ball."""
    return clamp(x / (1 + _norm(_require_full_precision(x))))


def mobius_add(x: Float[Tensor, "*s n"], y: Float[Tensor, "*s n"]) -> Float[Tensor, "*s n"]:
    """Compute the Moebius addition, which translates ``y`` by ``x``."""
    xy = (x * y).sum(-1, keepdim=True)
    x2 = x.square().sum(-1, keepdim=True)
    y2 = y.square().sum(-1, keepdim=True)
    numerator = (1 + 2 * xy + y2) * x + (1 - x2) * y
    return clamp(numerator / (1 + 2 * xy + x2 * y2).clamp_min(TINY))


def log(base: Float[Tensor, "*s n"], x: Float[Tensor, "*s n"]) -> Float[Tensor, "*s n"]:
    """Compute Log_base(x), the tangent vector at ``base`` towards ``x``; zero where they coincide."""
    base, x = clamp(base), clamp(x)
    moved = mobius_add(-base, x)
    norm = _norm(moved)
    conformal = (1 - base.square().sum(-1, keepdim=True)).clamp_min(BOUNDARY_MARGIN)
    return conformal * _artanh(norm) / norm * moved


def distance(x: Float[Tensor, "*s n"], y: Float[Tensor, "*s n"]) -> Float[Tensor, "*s"]:
    """Compute d_H(x, y) = arcosh(1 + 2|x-y|^2 / ((1-|x|^2)(1-|y|^2))) (eq. 12).

    Uses arcosh(1 + 2u) = 2 arsinh(sqrt(u)), which is accurate near zero and has a finite gradient where the
    points coincide.
    """
    x, y = clamp(x), clamp(y)
    squared_gap = (x - y).square().sum(-1)
    denominator = (1 - x.square().sum(-1)).clamp_min(BOUNDARY_MARGIN) * (1 - y.square().sum(-1)).clamp_min(
        BOUNDARY_MARGIN
    )
    return 2 * torch.asinh((squared_gap / denominator).clamp_min(TINY**2).sqrt())
