"""Acquisition function ``expected_gain``."""

from __future__ import annotations

import pytest

from dsmoe_core.schema import Outcome, Prediction
from pipelines.rounds.acquisition.expected_gain import expected_gain_scores, expected_work
from pipelines.workspace.annotation_time import DEFAULT_SECONDS, IMAGE
from tests.pipelines.rounds.acquisition.candidates import ROUTING, detection, pool, ranking

SECONDS = {**DEFAULT_SECONDS, IMAGE: 2.0}


def test_expected_work_of_a_shown_and_a_hidden_detection() -> None:
    shown, hidden = detection("rust", 0.8, plum=0.1), detection("rust", 0.1)
    both = Prediction("a", (shown, hidden), ROUTING, 0.0, "m+b")
    corrections, boxes, seconds = expected_work(both, pool({}, shown_score=lambda _: 0.3), SECONDS)
    assert corrections == {"rust": pytest.approx(0.2 + 0.1)}
    assert boxes == {"rust": pytest.approx(0.9)}
    of_shown = (
        0.8 * SECONDS[Outcome.ACCEPTED] + 0.1 * SECONDS[Outcome.RELABELLED] + 0.1 * SECONDS[Outcome.DELETED]
    )
    assert seconds == {"rust": pytest.approx(of_shown + 0.1 * SECONDS[Outcome.ADDED])}


def test_score_is_corrections_per_second() -> None:
    scores = expected_gain_scores(pool({"none": (), "one": (detection("rust", 0.5),)}, budget=1))
    seconds = SECONDS[IMAGE] + 0.5 * SECONDS[Outcome.ACCEPTED] + 0.5 * SECONDS[Outcome.DELETED]
    assert scores["one"] == pytest.approx(0.5 / seconds)
    assert scores["none"] == 0


def test_calibrated_probabilities_replace_scores() -> None:
    detections = {"a": (detection("rust", 0.5),), "b": (detection("rust", 0.6),)}
    assert ranking(expected_gain_scores(pool(detections)))[0] == "a"
    overconfident = pool(detections, probability=lambda d: 0.5 if d.score == 0.6 else 0.99)
    assert ranking(expected_gain_scores(overconfident))[0] == "b"


def test_every_class_gets_its_minimum() -> None:
    """The images of the frequent class have more corrections, but each class is selected once."""
    detections = {f"rust{i}": tuple(detection("rust", 0.5, at=20.0 * j) for j in range(4)) for i in range(6)}
    detections |= {"plum": (detection("plum", 0.9),)}
    counts = {"rust": 0, "plum": 0}
    quota = pool(detections, budget=4, class_counts=lambda: counts, class_minimum=0.9)
    assert "plum" in ranking(expected_gain_scores(quota))[:4]
    free = pool(detections, budget=4, class_counts=lambda: counts, class_minimum=0.0)
    assert "plum" not in ranking(expected_gain_scores(free))[:4]


def test_similar_images_are_spread() -> None:
    detections = {key: (detection("rust", 0.5),) for key in ("a", "a2", "b")}
    vectors = {"a": (1.0, 0.0), "a2": (1.0, 0.001), "b": (0.0, 1.0)}
    chosen = ranking(expected_gain_scores(pool(detections, vectors, budget=2)))[:2]
    assert "b" in chosen
