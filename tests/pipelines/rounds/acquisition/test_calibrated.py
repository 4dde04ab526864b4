"""The calibrated probability of a detection, from images that were labelled after a prediction."""

from __future__ import annotations

from pathlib import Path

from dsmoe_core.schema import Annotation, Box, ImageRecord, LabelledImage, Prediction
from pipelines.rounds.acquisition.calibrated import MIN_DETECTIONS, calibrated_probability
from pipelines.rounds.acquisition.function import ReviewedImage
from tests.pipelines.rounds.acquisition.candidates import ROUTING, detection


def reviewed(count: int, correct: int) -> list[ReviewedImage]:
    """Images with one detection of score 0.9 each, the first of which are correct."""
    images = []
    for i in range(count):
        boxes = (Annotation(Box(0.0, 0.0, 9.0, 9.0), "rust"),) if i < correct else ()
        labelled = LabelledImage(ImageRecord(f"i{i}", "i", Path("i"), 40, 40), boxes)
        images.append(
            ReviewedImage(Prediction(f"i{i}", (detection("rust", 0.9),), ROUTING, 0.0, "m+b"), labelled)
        )
    return images


def test_an_overconfident_score_is_lowered_to_the_observed_share() -> None:
    probability = calibrated_probability(reviewed(200, 60))(detection("rust", 0.9))
    assert 0.25 < probability < 0.35


def test_with_few_detections_the_score_is_kept() -> None:
    assert calibrated_probability(reviewed(MIN_DETECTIONS - 1, 3))(detection("rust", 0.9)) == 0.9
    assert calibrated_probability([])(detection("plum", 0.25)) == 0.25
