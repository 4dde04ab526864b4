"""Tests of the reason of a task, the line above the image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from annotate.studio.protocol import Task
from annotate.studio.task_format import MAX_NAME, task_json
from dsmoe_core.schema import Arm, Box, Detection, ImageRecord, Prediction, Routing

PREDICTION = Prediction("k", (), Routing((0,), (1.0,), 0.0), 0.9, "m+b")


def reason(
    arm: Arm,
    prediction: Prediction | None = PREDICTION,
    acquisition: str | None = None,
    score: float | None = None,
    name: str = "a.png",
) -> str:
    image = ImageRecord("k", name, Path(name), 100, 100)
    task = Task(image, 2, arm, 4, prediction, acquisition, score)
    return str(task_json(task, "", ["open"])["data"]["reason"])


@pytest.mark.parametrize("acquisition", ["entropy", "random", "max_entropy"])
def test_ranked_image_names_its_acquisition_function_and_score(acquisition: str) -> None:
    text = reason(Arm.RANKED, PREDICTION, acquisition, 0.256)
    assert text.startswith("Round 2, image 5:")
    assert acquisition in text
    assert "0.26" in text
    assert "0.90" not in text  # the detector's uncertainty, which has not selected it
    assert "uncertain" not in text


@pytest.mark.parametrize("arm", [Arm.SEED, Arm.RANDOM])
def test_image_selected_at_random_has_no_score(arm: Arm) -> None:
    text = reason(arm, PREDICTION if arm is Arm.RANDOM else None, "entropy", 0.256)
    assert "at random" in text
    assert "entropy" not in text
    assert "0.26" not in text


@pytest.mark.parametrize(
    ("risks", "expected"),
    [
        ({}, "for the annotator."),
        ({"class": 0.9, "routing": 0.95, "novelty": 0.4}, "for the annotator."),
        ({"novelty": 0.6}, "for the domain expert."),
        ({"class": 0.9, "description": 0.7}, "for the domain expert."),
    ],
)
def test_ranked_image_names_who_should_look_at_it(risks: dict[str, float], expected: str) -> None:
    detection = Detection(Box(0, 0, 9, 9), "open", 0.6, {"open": 0.6}, 0.1, risks=risks)
    text = reason(Arm.RANKED, replace(PREDICTION, detections=(detection,)), "entropy", 0.256)
    assert expected in text
    assert "for the" not in reason(Arm.RANDOM, PREDICTION, "entropy", 0.256)


def test_blind_audit_is_named() -> None:
    assert "blind audit" in reason(Arm.RANKED, None, "entropy", 0.3)
    assert "blind audit" not in reason(Arm.SEED, None)


@pytest.mark.parametrize("length", [MAX_NAME, MAX_NAME + 1, 400])
def test_reason_is_short_and_has_the_end_of_the_name(length: int) -> None:
    name = ("folder/" * 100)[: length - 6] + "17.png"
    text = reason(Arm.RANKED, PREDICTION, "entropy", 123.456, name)
    assert text.endswith("17.png")
    assert (name in text) == (length <= MAX_NAME)
    assert len(text) <= 120
