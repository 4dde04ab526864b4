"""Statistics over training seeds: mean, 95 % interval, and Student's paired t test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit


class Mean(NamedTuple):
    """Mean of a metric over seeds with its 95 % interval (Student's t)."""

    mean: float
    ci95: tuple[float, float]


class PairedTest(NamedTuple):
    """Student's paired t test of one metric of two models over the same seeds.

    Attributes:
        delta: mean of first model minus second model.
        ci95: 95 % interval of ``delta``.
        t: the test statistic; degrees of freedom: number of seeds minus one.
        p: two-sided p value.
    """

    delta: float
    ci95: tuple[float, float]
    t: float
    p: float


def mean_over_seeds(values: Sequence[float]) -> Mean:
    """Mean and 95 % interval of a metric that was measured once per seed.

    Raises:
        ValueError: fewer than two values.
    """
    mean, error = _mean_and_error(values)
    half_width = t_quantile(len(values) - 1) * error
    return Mean(mean, (mean - half_width, mean + half_width))


def paired_t_test(first: Sequence[float], second: Sequence[float]) -> PairedTest:
    """Compare one metric of two models, given per seed in the same order of seeds.

    If all differences are equal, t is infinite and p is 0; if all are zero, t is 0 and p is 1.

    Raises:
        ValueError: the sequences differ in length, or have fewer than two values.
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    delta, error = _mean_and_error(differences)
    (low, high) = mean_over_seeds(differences).ci95
    t = delta / error if error else math.copysign(math.inf, delta) if delta else 0.0
    return PairedTest(delta, (low, high), t, two_sided_p(t, len(differences) - 1))


def two_sided_p(t: float, freedom: int) -> float:
    """P(|T| > |t|) for Student's T with ``freedom`` degrees of freedom."""
    return 2 * float(stdtr(freedom, -abs(t)))


def t_quantile(freedom: int, p: float = 0.05) -> float:
    """The value that |T| exceeds with probability ``p``."""
    return float(stdtrit(freedom, 1 - p / 2))


def _mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard error of the mean."""
    if len(values) < 2:
        raise ValueError(f"{len(values)} values; expected at least two seeds")
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return float(np.mean(values)), 0.0 if max(values) == min(values) else error
