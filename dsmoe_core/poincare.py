"""The Poincare ball D^n = {x : |x| < 1}, curvature -1, in fp32 (or fp64) with safe edges.

Every function takes and returns points or tangent vectors in the last axis. Half precision is refused: near
the rim of the ball it cannot tell 1 from 1 - 1e-3. Formulas: Ganea, Becigneul, Hofmann, "Hyperbolic neural
networks" (2018), with the paper's ``Exp_0(v) = tanh(|v|) v / |v|`` (eq. 9), which is theirs for curvature -1.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

RIM = 1e-5
"""How far from the rim a point is kept: |x| <= 1 - RIM."""
TINY = 1e-12


def _norm(x: Float[Tensor, "*s n"]) -> Float[Tensor, "*s 1"]:
    """Norm whose gradient at the origin is zero instead of NaN."""
    return x.square().sum(-1, keepdim=True).clamp_min(TINY**2).sqrt()


def _full(x: Tensor) -> Tensor:
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"Poincare ball got {x.dtype}; expected float32 or float64: cast before you call")
    return x


def clamp(x: Float[Tensor, "*s n"]) -> Float[Tensor, "*s n"]:
    """Pull points that left the ball by rounding back to |x| = 1 - RIM."""
    norm = _norm(_full(x))
    return torch.where(norm > 1 - RIM, x / norm * (1 - RIM), x)


def exp0(v: Float[Tensor, "*s n"]) -> Float[Tensor, "*s n"]:
    """Exp_0 (eq. 9): tangent vector at the origin to point; the limit at v = 0 is v."""
    norm = _norm(_full(v))
    return clamp(torch.tanh(norm) / norm * v)


def log0(x: Float[Tensor, "*s n"]) -> Float[Tensor, "*s n"]:
    """Log_0, the inverse of :func:`exp0`; the limit at x = 0 is x."""
    x = clamp(x)
    norm = _norm(x)
    return torch.atanh(norm.clamp(max=1 - RIM)) / norm * x


def project(x: Float[Tensor, "*s n"]) -> Float[Tensor, "*s n"]:
    """Proj(x) = x / (1 + |x|) of stage 5: any vector into the open ball."""
    return clamp(x / (1 + _norm(_full(x))))


def mobius_add(x: Float[Tensor, "*s n"], y: Float[Tensor, "*s n"]) -> Float[Tensor, "*s n"]:
    """Moebius addition, the ball's translation of ``y`` by ``x``."""
    xy = (x * y).sum(-1, keepdim=True)
    x2 = x.square().sum(-1, keepdim=True)
    y2 = y.square().sum(-1, keepdim=True)
    above = (1 + 2 * xy + y2) * x + (1 - x2) * y
    return clamp(above / (1 + 2 * xy + x2 * y2).clamp_min(TINY))


def log(base: Float[Tensor, "*s n"], x: Float[Tensor, "*s n"]) -> Float[Tensor, "*s n"]:
    """Log_base(x): the tangent vector at ``base`` that points to ``x``; zero where they meet."""
    base, x = clamp(base), clamp(x)
    moved = mobius_add(-base, x)
    norm = _norm(moved)
    conformal = (1 - base.square().sum(-1, keepdim=True)).clamp_min(RIM)
    return conformal * torch.atanh(norm.clamp(max=1 - RIM)) / norm * moved


def distance(x: Float[Tensor, "*s n"], y: Float[Tensor, "*s n"]) -> Float[Tensor, "*s"]:
    """d_H(x, y) = arcosh(1 + 2|x-y|^2 / ((1-|x|^2)(1-|y|^2))), in the form that is exact near zero.

    arcosh(1 + 2u) = 2 arsinh(sqrt(u)), whose gradient stays finite as the points meet.
    """
    x, y = clamp(x), clamp(y)
    gap = (x - y).square().sum(-1)
    room = (1 - x.square().sum(-1)).clamp_min(RIM) * (1 - y.square().sum(-1)).clamp_min(RIM)
    return 2 * torch.asinh((gap / room).clamp_min(TINY**2).sqrt())
