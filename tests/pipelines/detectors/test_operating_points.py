"""Thresholds of pre-annotations that make the expected correction time least."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import labelled, prediction, random_scene

from dsmoe_core.evaluation.probability_calibration import Calibrator
from dsmoe_core.schema import Annotation, Box, Outcome
from dsmoe_core.uncertainty import MIN_SCORE
from pipelines.detectors.operating_points import (
    choose_operating_points,
    detection_outcomes,
    lowest_score,
)
from pipelines.detectors.pre_annotations import UNMEASURED_SCORE, pre_annotations
from pipelines.settings.rounds import RoundSettings
from pipelines.workspace.annotation_time import CorrectionSeconds
from pipelines.workspace.operating_points import OperatingPoints

DEFAULT = CorrectionSeconds()
BOX = Box(20, 20, 60, 60)


def points_for(
    rates: dict[str, float], seconds: CorrectionSeconds = DEFAULT, count: int = 80
) -> OperatingPoints:
    """Points of detections of which this share of each class has a true box, times its score."""
    rng = np.random.default_rng(0)
    truth, predictions = [], []
    for label, rate in rates.items():
        for i in range(count):
            key, score = f"{label}{i}", float(rng.uniform(0.06, 0.95))
            truth.append(labelled(key, *([(BOX, label)] if rng.random() < rate * score else [])))
            predictions.append(prediction(key, (BOX, label, score)))
    return choose_operating_points(predictions, truth, seconds, "d+b")


def test_outcomes_are_those_of_an_annotator() -> None:
    rows = (
        (BOX, "spur", 0.9),
        (Box(22, 22, 62, 62), "spur", 0.8),
        (Box(100, 100, 140, 125), "short", 0.7),
        (Box(150, 20, 190, 60), "hole", 0.6),
    )
    truth = [
        Annotation(BOX, "spur"),
        Annotation(Box(100, 100, 140, 140), "short"),
        Annotation(Box(150, 20, 190, 60), "short"),
    ]
    outcomes = detection_outcomes(prediction("a", *rows).detections, truth)
    assert outcomes == [Outcome.ACCEPTED, Outcome.DELETED, Outcome.MOVED, Outcome.RELABELLED]
    assert detection_outcomes((), truth) == []


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.floats(0, 1))
def test_a_threshold_does_not_change_the_outcomes_that_stay(seed: int, threshold: float) -> None:
    predictions, truth = random_scene(seed, images=3)
    for image in truth:
        detections = predictions[image.image.key].detections
        stay = [d for d in detections if d.score >= threshold]
        outcomes = detection_outcomes(detections, image.annotations)
        expected = [o for d, o in zip(detections, outcomes, strict=True) if d.score >= threshold]
        assert detection_outcomes(stay, image.annotations) == expected


def test_better_class_has_a_lower_threshold() -> None:
    points = points_for({"good": 1.0, "bad": 0.3})
    assert points.threshold("good") < points.threshold("bad")
    assert min(points.thresholds.values()) >= MIN_SCORE
    assert points.threshold("never seen") == points.other_classes
    assert points.kept.probability("good", points.threshold("good")) >= points.min_probability - 1e-3
    assert OperatingPoints.model_validate_json(points.model_dump_json()) == points


def test_threshold_follows_the_times() -> None:
    fast = points_for({"a": 1.0}, CorrectionSeconds(deleted=0.2))
    slow = points_for({"a": 1.0}, CorrectionSeconds(deleted=20.0))
    assert fast.min_probability < points_for({"a": 1.0}).min_probability < slow.min_probability
    assert fast.threshold("a") < slow.threshold("a")
    never = points_for({"a": 1.0}, CorrectionSeconds(added=0.5))
    assert (never.min_probability, never.threshold("a")) == (1.0, 1.0)


def test_chosen_threshold_needs_about_the_least_time() -> None:
    """Compared with every fixed score on fresh detections of the same kind."""
    points = points_for({"a": 0.8}, count=250)
    rng = np.random.default_rng(9)
    score = rng.uniform(0.06, 0.95, 20000)
    exists = rng.random(20000) < 0.8 * score

    def seconds(threshold: float) -> float:
        shown = score >= threshold
        accepted, deleted = (shown & exists).mean(), (shown & ~exists).mean()
        added = (~shown & exists).mean()
        return float(DEFAULT.accepted * accepted + DEFAULT.deleted * deleted + DEFAULT.added * added)

    best = min(map(seconds, np.linspace(0.05, 0.95, 91)))
    assert seconds(points.threshold("a")) < 1.03 * best
    assert seconds(0.9) > 1.2 * best


@pytest.mark.parametrize("probability", [0.0, 0.2, 0.9, 1.0])
def test_lowest_score_inverts_the_curve(probability: float) -> None:
    score = lowest_score(Calibrator(), probability)
    assert MIN_SCORE <= score <= 1
    if MIN_SCORE < probability < 1:
        assert score == pytest.approx(probability, abs=1e-3)


def test_threshold_is_fixed_chosen_or_that_of_an_unmeasured_model() -> None:
    shown = prediction(
        "a", (BOX, "a", 0.5), (Box(100, 100, 140, 140), "b", 0.2), (Box(0, 100, 9, 140), "a", 0.1)
    )
    points = points_for({"a": 1.0}).model_copy(update={"thresholds": {"a": 0.4, "b": 0.15}})
    automatic = RoundSettings()
    assert automatic.pre_annotation_score is None
    assert [d.score for d in pre_annotations(shown, automatic, points).detections] == [0.5, 0.2]
    assert UNMEASURED_SCORE == 0.3
    assert [d.score for d in pre_annotations(shown, automatic, None).detections] == [0.5]
    fixed = RoundSettings(pre_annotation_score=0.05)
    assert len(pre_annotations(shown, fixed, points).detections) == 3


def test_without_detections_there_are_points() -> None:
    points = choose_operating_points([], [labelled("a", (BOX, "spur"))], DEFAULT, "d+b")
    assert points.thresholds == {}
    assert MIN_SCORE <= points.other_classes <= 1
