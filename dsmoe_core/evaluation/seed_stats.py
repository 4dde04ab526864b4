"""How far figures wander from one training to the next: means, intervals and a paired test over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit


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
    """P(|T| > |t|) for Student's T."""
    return 2 * float(stdtr(freedom, -abs(t)))


def t_quantile(freedom: int, p: float = 0.05) -> float:
    """The t that |T| exceeds with probability p."""
    return float(stdtrit(freedom, 1 - p / 2))


def _mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    if len(values) < 2:
        raise ValueError(f"{len(values)} values; expected at least two seeds")
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return float(np.mean(values)), 0.0 if max(values) == min(values) else error
