"""Student's t compared with closed forms; means, intervals and paired tests over seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmoe_core.evaluation.seed_stats import mean_over_seeds, paired_t_test, t_quantile, two_sided_p


@given(st.floats(0, 1e4))
def test_p_equals_the_closed_form(t: float) -> None:
    cosine = 1 / math.sqrt(1 + t**2 / 4)
    sine = t / 2 * cosine
    closed = {
        1: 1 - 2 / math.pi * math.atan(t),
        2: 1 - t / math.sqrt(2 + t**2),
        4: 1 - sine * (1 + cosine**2 / 2),
    }
    for freedom, expected in closed.items():
        assert two_sided_p(t, freedom) == pytest.approx(expected, abs=1e-12 if t > 1e-3 else 1e-8)
        assert two_sided_p(-t, freedom) == two_sided_p(t, freedom)


def test_p_approaches_that_of_a_normal_distribution() -> None:
    assert two_sided_p(1.5, 2000) == pytest.approx(math.erfc(1.5 / math.sqrt(2)), abs=2e-4)
    assert two_sided_p(math.inf, 4) == pytest.approx(0, abs=1e-15)


@given(st.integers(1, 60), st.floats(0.001, 0.9))
def test_quantile_is_the_inverse_of_p(freedom: int, p: float) -> None:
    assert two_sided_p(t_quantile(freedom, p), freedom) == pytest.approx(p)


def test_quantile_of_five_seeds() -> None:
    assert t_quantile(4) == pytest.approx(2.776445, abs=1e-6)


def test_interval_over_five_seeds_by_hand() -> None:
    result = mean_over_seeds([0.70, 0.72, 0.74, 0.76, 0.78])
    half_width = 2.776445 * math.sqrt(0.001) / math.sqrt(5)  # the sample variance is 0.001
    assert result.mean == pytest.approx(0.74)
    assert result.ci95 == pytest.approx((0.74 - half_width, 0.74 + half_width))


def test_paired_test_by_hand() -> None:
    result = paired_t_test([0.5, 0.6, 0.7], [0.4, 0.4, 0.4])  # differences 0.1, 0.2, 0.3
    assert result.delta == pytest.approx(0.2)
    assert result.t == pytest.approx(0.2 / (0.1 / math.sqrt(3)))
    assert result.p == pytest.approx(1 - result.t / math.sqrt(2 + result.t**2))


def test_intervals_cover_and_p_is_uniform_without_a_difference() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(0, 1, (1000, 2, 5))
    tests = [paired_t_test(a.tolist(), b.tolist()) for a, b in rows]
    assert np.mean([t.ci95[0] <= 0 <= t.ci95[1] for t in tests]) == pytest.approx(0.95, abs=0.02)
    assert np.mean([t.p < 0.2 for t in tests]) == pytest.approx(0.2, abs=0.04)
    assert all((t.p < 0.05) == (not t.ci95[0] <= 0 <= t.ci95[1]) for t in tests)


def test_equal_differences_are_certain() -> None:
    same = paired_t_test([0.5, 0.6], [0.5, 0.6])
    assert (same.delta, same.t, same.p) == (0.0, 0.0, 1.0)
    constant = paired_t_test([0.75, 0.5], [0.5, 0.25])
    assert (constant.t, constant.ci95) == (math.inf, (0.25, 0.25))
    assert constant.p == pytest.approx(0, abs=1e-15)


def test_single_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="1 values"):
        mean_over_seeds([0.5])
    with pytest.raises(ValueError, match="zip"):
        paired_t_test([0.5, 0.6], [0.5])
