"""How far figures wander from one training to the next: means, intervals and a paired test over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np


class Mean(NamedTuple):
    """A mean over seeds with its 95 % interval (Student's t)."""

    mean: float
    ci95: tuple[float, float]


class PairedTest(NamedTuple):
    """Two models' figures, seed by seed.

    Attributes:
        delta: the mean of the first one's less the second one's.
        t: Student's statistic, with one degree of freedom less than there are seeds.
        p: two-sided.
    """

    delta: float
    ci95: tuple[float, float]
    t: float
    p: float


def mean_over_seeds(values: Sequence[float]) -> Mean:
    """Mean and 95 % interval of one figure, measured once a seed.

    Raises:
        ValueError: fewer than two values, of which nothing can be said.
    """
    mean, error = _mean_and_error(values)
    reach = t_quantile(len(values) - 1) * error
    return Mean(mean, (mean - reach, mean + reach))


def paired_t_test(one: Sequence[float], other: Sequence[float]) -> PairedTest:
    """Whether two models differ, from one figure of each per seed, in the same order of seeds.

    Where all differences are equal t is infinite and p is 0; where all are zero t is 0 and p is 1.

    Raises:
        ValueError: the two are not of one length, or there are fewer than two seeds.
    """
    differences = [a - b for a, b in zip(one, other, strict=True)]
    delta, error = _mean_and_error(differences)
    (low, high) = mean_over_seeds(differences).ci95
    t = delta / error if error else math.copysign(math.inf, delta) if delta else 0.0
    return PairedTest(delta, (low, high), t, two_sided_p(t, len(differences) - 1))


def two_sided_p(t: float, freedom: int) -> float:
    """P(|T| > |t|) for Student's T.

    With t = sqrt(freedom) tan(a) the density becomes cos(a) ** (freedom - 1), which is smooth, so
    Gauss-Legendre quadrature of it is exact to rounding for the few seeds that anyone trains.
    """
    start = math.atan(abs(t) / math.sqrt(freedom))
    return _cosine_power(start, freedom - 1) / _cosine_power(0.0, freedom - 1)


@cache
def t_quantile(freedom: int, p: float = 0.05) -> float:
    """The t that |T| exceeds with probability p."""
    low, high = 0.0, math.pi / 2  # of the angle, in which halving is safe: the tail of t has no end
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided_p(math.tan(middle), freedom) > p else (low, middle)
    return math.tan((low + high) / 2)


def _mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    if len(values) < 2:
        raise ValueError(f"{len(values)} values; expected at least two seeds")
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return float(np.mean(values)), 0.0 if max(values) == min(values) else error


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(200)


def _cosine_power(start: float, power: int) -> float:
    """The integral of cos ** power from ``start`` to a right angle."""
    half = (math.pi / 2 - start) / 2
    return float(half * (_WEIGHTS * np.cos(start + half * (_NODES + 1)) ** power).sum())
