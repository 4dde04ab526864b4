"""Acquisition function ``pal``."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from dsmoe_core.schema import Annotation, Box, ImageRecord, LabelledImage, Prediction
from pipelines.rounds.acquisition.function import ReviewedImage
from pipelines.rounds.acquisition.pal import class_weights, outcome_models, pal_scores
from tests.pipelines.rounds.acquisition.candidates import ROUTING, detection, pool, ranking


def reviewed(key: str, score: float, correct: bool) -> ReviewedImage:
    image = ImageRecord(key, key, Path(key), 40, 40)
    boxes = (Annotation(Box(0.0, 0.0, 9.0, 9.0), "rust"),) if correct else ()
    return ReviewedImage(
        Prediction(key, (detection("rust", score),), ROUTING, 0.0, "m+b"), LabelledImage(image, boxes)
    )


def test_the_outcome_is_learned_from_reviewed_images() -> None:
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.05, 0.95, size=400)
    images = [reviewed(f"i{i}", float(s), bool(rng.random() < s)) for i, s in enumerate(scores)]
    model = outcome_models(images)["rust"]
    for score in (0.2, 0.5, 0.8):
        logit = model[0] + model[1] * math.log(score / (1 - score)) + model[2] * math.log(1)
        assert 1 / (1 + math.exp(-logit)) == pytest.approx(score, abs=0.1)


def test_a_class_with_few_outcomes_has_no_model() -> None:
    assert outcome_models([reviewed(f"i{i}", 0.5, i % 2 == 0) for i in range(8)]) == {}


def test_uncertain_outcomes_come_first_and_rare_classes_count_more() -> None:
    scores = pal_scores(
        pool(
            {
                "sure": (detection("rust", 0.99),),
                "unsure": (detection("rust", 0.5),),
                "rare": (detection("plum", 0.5),),
            },
            class_counts=lambda: {"rust": 99, "plum": 0},
        )
    )
    assert ranking(scores) == ["rare", "unsure", "sure"]


def test_weight_of_the_rarest_class_is_one() -> None:
    assert class_weights({"rust": 3, "plum": 0}) == {"rust": 0.5, "plum": 1.0}
    assert class_weights({}) == {}


def test_a_similar_image_is_penalised() -> None:
    detections = {k: (detection("rust", p),) for k, p in (("a", 0.5), ("a2", 0.49), ("b", 0.45))}
    vectors = {"a": (1.0, 0.0), "a2": (1.0, 0.01), "b": (0.0, 1.0)}
    assert ranking(pal_scores(pool(detections, vectors, budget=2))) == ["a", "b", "a2"]
    assert ranking(pal_scores(pool(detections, budget=2))) == ["a", "a2", "b"]
