"""Extrapolated learning curve: known truths are covered, and more data narrows the interval."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsmoe_core.evaluation.learning_curve import LearningCurve, fit_learning_curve

SIZES = [100.0, 220.0, 350.0, 480.0, 600.0]


def curve(n: float, start: float, rise: float, exponent: float) -> float:
    return start + rise * (1 - (n / SIZES[0]) ** -exponent)


def fitted(values: list[float], sizes: list[float] = SIZES) -> LearningCurve:
    found = fit_learning_curve(sizes, values, resamples=400)
    assert found is not None
    return found


@pytest.mark.parametrize(("points", "noise"), [(2, 0.015), (3, 0.02), (5, 0.01), (5, 0.03)])
def test_interval_covers_the_true_gain(points: int, noise: float) -> None:
    rng = np.random.default_rng(points)
    sizes, covered, trials = SIZES[:points], 0, 80
    for _ in range(trials):
        start, exponent = rng.uniform(0.2, 0.6), float(np.exp(rng.normal(np.log(0.5), 0.5)))
        truth = (start, rng.uniform(0.05, min(0.6, 1 - start)), exponent)
        values = [curve(n, *truth) + noise * float(rng.standard_normal()) for n in sizes]
        gain = fitted(values, sizes).gain(200)
        real = curve(sizes[-1] + 200, *truth) - curve(sizes[-1], *truth)
        covered += gain.low <= real <= gain.high
    assert 0.9 * trials <= covered


def test_more_rounds_narrow_the_interval() -> None:
    def width(points: int) -> float:
        gain = fitted([curve(n, 0.3, 0.4, 0.6) for n in SIZES[:points]], SIZES[:points]).gain(200)
        return gain.high - gain.low

    assert width(5) < width(3) < width(2)


def test_flat_curve_promises_nothing_and_steep_one_its_slope() -> None:
    sizes = [200.0 * i for i in range(1, 13)]
    assert fitted([0.5] * 12, sizes).gain(200).high < 0.002
    steep = [curve(n, 0.2, 0.7, 0.4) for n in sizes]
    real = curve(2600.0, 0.2, 0.7, 0.4) - curve(2400.0, 0.2, 0.7, 0.4)
    gain = fitted(steep, sizes).gain(200)
    assert 0 < gain.low <= real <= gain.high
    assert gain.value == pytest.approx(real, rel=0.3)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=5), st.integers(1, 2000))
def test_gain_is_never_negative_or_above_the_maximum(values: list[float], more: int) -> None:
    found = fitted(values, SIZES[: len(values)])
    gain = found.gain(more)
    assert 0 <= gain.low <= gain.value <= gain.high
    assert gain.high <= found.gain(2 * more).high
    assert (found.rise >= 0).all()
    assert (found.start + found.rise <= 1 + 1e-9).all()


def test_one_size_gives_no_curve() -> None:
    assert fit_learning_curve([], []) is None
    assert fit_learning_curve([100.0, 100.0], [0.4, 0.5]) is None


def test_order_of_the_rounds_does_not_matter() -> None:
    values = [curve(n, 0.3, 0.4, 0.6) for n in SIZES]
    forward, backward = fitted(values), fitted(values[::-1], SIZES[::-1])
    assert forward.first == backward.first == 100
    assert forward.last == backward.last == 600
    assert forward.gain(200).value == pytest.approx(backward.gain(200).value, abs=0.005)
