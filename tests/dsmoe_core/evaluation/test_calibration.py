"""Reliability bins, expected calibration error and temperature scaling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenes import labelled, prediction

from dsmoe_core.evaluation.calibration import (
    calibration,
    expected_calibration_error,
    fit_temperature,
    reliability,
    scale_scores,
)
from dsmoe_core.evaluation.matching import ImageMatches, match_images
from dsmoe_core.schema import Box

scored = st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=40)


@given(scored)
def test_error_and_bins_equal_a_loop(rows: list[tuple[float, bool]]) -> None:
    score = np.array([s for s, _ in rows], dtype=np.float64)
    correct = np.array([r for _, r in rows], dtype=bool)
    bins = reliability(score, correct)
    assert sum(b.count for b in bins) == len(rows)
    expected = 0.0
    for b, bin_ in enumerate(bins):
        inside = [(s, r) for s, r in rows if min(int(s * 10), 9) == b]
        assert bin_.count == len(inside)
        if inside:
            mean, share = (sum(column) / len(inside) for column in zip(*inside, strict=True))
            assert (bin_.mean_score, bin_.precision) == (pytest.approx(mean), pytest.approx(share))
            expected += len(inside) / len(rows) * abs(mean - share)
    error = expected_calibration_error(score, correct)
    assert error is None if not rows else error == pytest.approx(expected, abs=1e-9)


def miscalibrated(count: int, temperature: float) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Scores that this temperature calibrates, and whether each detection is correct."""
    rng = np.random.default_rng(0)
    probabilities = rng.uniform(0.02, 0.98, count)
    return scale_scores(probabilities, 1 / temperature), rng.random(count) < probabilities


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_fit_recovers_the_temperature(temperature: float) -> None:
    score, correct = miscalibrated(20000, temperature)
    assert fit_temperature(score, correct) == pytest.approx(temperature, rel=0.05)
    after = expected_calibration_error(scale_scores(score, temperature), correct)
    assert after is not None
    assert after < 0.02


def test_fit_is_the_minimum_of_a_grid() -> None:
    score, correct = miscalibrated(60, 1.7)
    fitted = fit_temperature(score, correct)

    def loss(temperature: float) -> float:
        p = scale_scores(score, temperature)
        return float(-np.log(np.where(correct, p, 1 - p)).sum())

    grid = np.geomspace(0.3, 19, 4000)
    assert fitted == pytest.approx(min(grid, key=loss), rel=2e-3)


@pytest.mark.parametrize("correct", [[], [True, True], [False, False]])
def test_no_temperature_without_both_correct_and_false_detections(correct: list[bool]) -> None:
    score = np.full(len(correct), 0.8)
    assert fit_temperature(score, np.array(correct, dtype=bool)) is None


def overconfident(images: int) -> list[ImageMatches]:
    """Detections with a score of 0.95, of which two thirds are correct."""
    box, far = Box(0, 0, 10, 10), Box(50, 50, 60, 60)
    detections = {
        f"p{i}": prediction(f"p{i}", (far if i % 3 == 0 else box, "spur", 0.95)) for i in range(images)
    }
    return match_images(detections, [labelled(f"p{i}", (box, "spur")) for i in range(images)])


def test_scaling_is_fitted_and_evaluated_on_different_halves() -> None:
    result = calibration(overconfident(60), seed=1)
    assert result.error == pytest.approx(0.95 - 2 / 3)
    assert result.scaling is not None
    assert (result.scaling.fitted_on, result.scaling.evaluated_on) == (30, 30)
    assert result.scaling.temperature > 1
    assert result.scaling.after < result.scaling.before
    assert result == calibration(overconfident(60), seed=1)
    other = calibration(overconfident(60), seed=2).scaling
    assert other is not None
    assert other.temperature != result.scaling.temperature


def test_without_detections_there_is_no_error() -> None:
    result = calibration(match_images({}, [labelled("p")]), seed=0)
    assert (result.detections, result.error, result.scaling) == (0, None, None)
    assert {b.count for b in result.bins} == {0}


@pytest.mark.parametrize(("count", "error"), [(100, 0.09), (250, 0.06), (10_000, 0.01)])
def test_error_of_few_samples_is_above_zero_for_true_probabilities(count: int, error: float) -> None:
    """docs/uncertainty.md has these figures."""
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(50):
        probabilities = rng.beta(2, 1, count)
        errors.append(expected_calibration_error(probabilities, rng.random(count) < probabilities))
    assert np.mean(np.array(errors, dtype=np.float64)) == pytest.approx(error, abs=0.01)
