"""Reliability, expected calibration error and temperature."""

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
def test_error_and_bins_against_plain_loops(rows: list[tuple[float, bool]]) -> None:
    score = np.array([s for s, _ in rows], dtype=np.float64)
    right = np.array([r for _, r in rows], dtype=bool)
    bins = reliability(score, right)
    assert sum(b.count for b in bins) == len(rows)
    expected = 0.0
    for b, one in enumerate(bins):
        inside = [(s, r) for s, r in rows if min(int(s * 10), 9) == b]
        assert one.count == len(inside)
        if inside:
            mean, share = (sum(column) / len(inside) for column in zip(*inside, strict=True))
            assert (one.mean_score, one.precision) == (pytest.approx(mean), pytest.approx(share))
            expected += len(inside) / len(rows) * abs(mean - share)
    error = expected_calibration_error(score, right)
    assert error is None if not rows else error == pytest.approx(expected, abs=1e-9)


def spoiled(count: int, temperature: float) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Scores that would be probabilities after scaling with this temperature, and what is right."""
    rng = np.random.default_rng(0)
    honest = rng.uniform(0.02, 0.98, count)
    return scale_scores(honest, 1 / temperature), rng.random(count) < honest


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_spoiled_scores_is_found_again(temperature: float) -> None:
    score, right = spoiled(20000, temperature)
    assert fit_temperature(score, right) == pytest.approx(temperature, rel=0.05)
    after = expected_calibration_error(scale_scores(score, temperature), right)
    assert after is not None
    assert after < 0.02


def test_the_fit_is_the_best_of_a_fine_grid() -> None:
    score, right = spoiled(60, 1.7)
    ours = fit_temperature(score, right)

    def loss(temperature: float) -> float:
        p = scale_scores(score, temperature)
        return float(-np.log(np.where(right, p, 1 - p)).sum())

    grid = np.geomspace(0.3, 19, 4000)
    assert ours == pytest.approx(min(grid, key=loss), rel=2e-3)


@pytest.mark.parametrize("right", [[], [True, True], [False, False]])
def test_no_temperature_fits_nothing_or_only_right_or_only_false_detections(right: list[bool]) -> None:
    score = np.full(len(right), 0.8)
    assert fit_temperature(score, np.array(right, dtype=bool)) is None


def too_sure(images: int) -> list[ImageMatches]:
    """Detections with a score of 0.95, of which two in three are right."""
    box, far = Box(0, 0, 10, 10), Box(50, 50, 60, 60)
    detections = {
        f"p{i}": prediction(f"p{i}", (far if i % 3 == 0 else box, "spur", 0.95)) for i in range(images)
    }
    return match_images(detections, [labelled(f"p{i}", (box, "spur")) for i in range(images)])


def test_scaling_is_fitted_on_one_half_and_judged_on_the_other() -> None:
    answer = calibration(too_sure(60), seed=1)
    assert answer.error == pytest.approx(0.95 - 2 / 3)
    assert answer.scaling is not None
    assert (answer.scaling.fitted_on, answer.scaling.evaluated_on) == (30, 30)
    assert answer.scaling.temperature > 1
    assert answer.scaling.after < answer.scaling.before
    assert answer == calibration(too_sure(60), seed=1)
    other = calibration(too_sure(60), seed=2).scaling
    assert other is not None
    assert other.temperature != answer.scaling.temperature


def test_without_detections_there_is_no_figure() -> None:
    answer = calibration(match_images({}, [labelled("p")]), seed=0)
    assert (answer.detections, answer.error, answer.scaling) == (0, None, None)
    assert {b.count for b in answer.bins} == {0}
