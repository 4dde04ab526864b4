"""Calibration of scores to probabilities of an event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import labelled, prediction

from dsmoe_core.errors import DataError
from dsmoe_core.evaluation.calibration import expected_calibration_error
from dsmoe_core.evaluation.matching import match_images
from dsmoe_core.evaluation.probability_calibration import (
    Calibrator,
    DetectionCalibration,
    Transform,
    fit,
    fit_detections,
)
from dsmoe_core.schema import Box

observations = st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.floats(0, 10)), max_size=30)


def columns(rows: list[tuple[float, bool, float]]) -> tuple[Any, Any, Any]:
    score, event, weight = zip(*rows, strict=True) if rows else ((), (), ())
    return np.array(score, dtype=float), np.array(event, dtype=bool), np.array(weight, dtype=float)


@settings(max_examples=20, deadline=None)
@given(observations, st.sampled_from(["logit", "linear"]))
def test_probability_never_falls_and_survives_json(
    rows: list[tuple[float, bool, float]], transform: Transform
) -> None:
    calibrator = fit(*columns(rows), transform=transform)
    grid = np.linspace(0, 1, 101)
    probability = calibrator(grid)
    assert (np.diff(probability) >= -1e-12).all()
    assert ((probability >= 0) & (probability <= 1)).all()
    again = Calibrator.model_validate_json(calibrator.model_dump_json())
    assert again == calibrator
    np.testing.assert_array_equal(again(grid), probability)


@pytest.mark.parametrize(
    ("transform", "curve"),
    [
        ("logit", lambda s: s),
        ("logit", lambda s: s**2),
        ("logit", lambda s: 1 - (1 - s) ** 3),
        ("logit", lambda s: 0.02 + 0.1 * s),
        ("linear", lambda s: 1 / (1 + np.exp(6 - 12 * s))),
        ("linear", lambda s: 0.3 * s),
    ],
)
def test_known_curve_is_recovered(transform: Transform, curve: Callable[[Any], Any]) -> None:
    rng = np.random.default_rng(3)
    score = rng.beta(0.7, 1.5, 4000)
    event = rng.random(4000) < curve(score)
    calibrator = fit(score, event, transform=transform)
    fresh = rng.beta(0.7, 1.5, 20000)
    error = expected_calibration_error(calibrator(fresh), rng.random(20000) < curve(fresh))
    assert error is not None
    assert error < 0.02
    assert np.abs(calibrator(fresh) - curve(fresh)).mean() < 0.02


def test_few_events_are_drawn_towards_the_base_rate() -> None:
    """Two events in 40 observations that a separating curve would fit perfectly."""
    score = np.linspace(0.02, 0.98, 40)
    calibrator = fit(score, score > 0.95)
    probability = calibrator(score)
    assert probability.sum() == pytest.approx(2, abs=0.6)
    assert 0.2 < probability[-1] < 0.95
    assert calibrator.base_rate == pytest.approx((2 + 0.5) / 41)


@pytest.mark.parametrize("prior_rate", [0.1, 0.5])
def test_without_data_the_probability_is_the_prior_rate(prior_rate: float) -> None:
    calibrator = fit(np.zeros(0), np.zeros(0, dtype=bool), prior_rate=prior_rate)
    assert calibrator(np.array([0.0, 0.4, 1.0])) == pytest.approx(np.full(3, prior_rate))
    assert calibrator.count == 0


@pytest.mark.parametrize("event", [False, True])
def test_only_one_kind_of_event_gives_a_finite_probability(event: bool) -> None:
    calibrator = fit(np.linspace(0.1, 0.9, 50), np.full(50, event))
    distance = calibrator(np.array([0.5]))[0] if not event else 1 - calibrator(np.array([0.5]))[0]
    assert 0 < distance < 0.02


def test_events_that_fall_with_the_score_give_a_flat_curve() -> None:
    rng = np.random.default_rng(0)
    score = rng.random(500)
    event = rng.random(500) < 1 - score
    calibrator = fit(score, event)
    probability = calibrator(np.array([0.05, 0.95]))
    assert probability[1] - probability[0] < 0.01
    assert probability[0] == pytest.approx(event.mean(), abs=0.01)


def test_weights_correct_a_biased_sample() -> None:
    """Correct detections are kept four times as often as false ones; the weights undo this."""
    rng = np.random.default_rng(1)
    score = rng.random(20000)
    event = rng.random(20000) < score
    kept = rng.random(20000) < np.where(event, 0.8, 0.2)
    weight = np.where(event[kept], 1.25, 5.0)
    weighted = fit(score[kept], event[kept], weight)
    unweighted = fit(score[kept], event[kept])
    assert weighted.probability(0.5) == pytest.approx(0.5, abs=0.03)
    assert unweighted.probability(0.5) > 0.7
    assert weighted.count < kept.sum()
    scaled = fit(score[kept], event[kept], 7 * weight)
    assert scaled.probability(0.3) == pytest.approx(weighted.probability(0.3), abs=1e-4)


def test_impossible_values_are_refused() -> None:
    event = np.array([True])
    with pytest.raises(DataError):
        fit(np.array([1.5]), event)
    with pytest.raises(DataError):
        fit(np.array([np.nan]), event, transform="linear")
    with pytest.raises(DataError):
        fit(np.array([0.5]), event, np.array([-1.0]))


def detections_of(rates: dict[str, tuple[int, float]]) -> DetectionCalibration:
    """Calibration of detections, of which this many of each class are correct at this rate at any score."""
    rng = np.random.default_rng(5)
    images, predictions = [], {}
    for label, (count, rate) in rates.items():
        for i in range(count):
            key, box = f"{label}{i}", Box(0, 0, 10, 10)
            images.append(labelled(key, (box, label if rng.random() < rate else "none")))
            predictions[key] = prediction(key, (box, label, float(rng.uniform(0.1, 0.9))))
    return fit_detections(match_images(predictions, images))


def test_rare_class_keeps_the_pooled_curve_and_frequent_class_its_own() -> None:
    fitted = detections_of({"often": (120, 0.9), "other": (120, 0.3), "rare": (2, 0.0)})
    assert fitted.probability("often", 0.5) == pytest.approx(0.9, abs=0.1)
    assert fitted.probability("other", 0.5) == pytest.approx(0.3, abs=0.1)
    pooled = fitted.pooled.probability(0.5)
    assert pooled == pytest.approx(0.6, abs=0.1)
    assert pooled - 0.3 < fitted.probability("rare", 0.5) < pooled
    assert fitted.probability("never seen", 0.5) == pooled
    assert DetectionCalibration.model_validate_json(fitted.model_dump_json()) == fitted


def test_calibrated_probabilities_have_less_than_half_of_the_error_of_the_scores() -> None:
    rng = np.random.default_rng(2)
    score = rng.random(200)
    event = rng.random(200) < score**3
    calibrator = fit(score, event)
    before = expected_calibration_error(score, event)
    after = expected_calibration_error(calibrator(score), event)
    assert before is not None
    assert after is not None
    assert after < before / 2
