"""Acquisition function ``ppal``."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.rounds.acquisition.ppal import POOL_FACTOR, difficulty_weights, ppal_scores
from tests.pipelines.rounds.acquisition.candidates import detection, pool, ranking


def test_difficulty_weight_rises_from_1_to_1_2() -> None:
    expected = np.array([1.0, 1.0, 1.0], dtype=np.float32)
    weights = difficulty_weights(expected, np.array([1.0, 0.5, 0.0], dtype=np.float32))
    assert weights[0] == pytest.approx(1.0)
    assert weights[2] == pytest.approx(1.2)
    assert 1.0 < weights[1] < 1.2


def test_of_two_similar_uncertain_images_one_is_selected() -> None:
    detections = {
        "a": (detection("rust", 0.5, 0.9),),
        "a2": (detection("rust", 0.5, 0.8),),
        "b": (detection("rust", 0.5, 0.7),),
        "c": (detection("rust", 0.5, 0.6),),
    }
    vectors = {"a": (1.0, 0.0, 0.0), "a2": (1.0, 0.01, 0.0), "b": (0.0, 1.0, 0.0), "c": (0.0, 0.0, 1.0)}
    scores = ppal_scores(pool(detections, vectors, budget=3))
    assert ranking(scores) == ["a", "b", "c", "a2"] or ranking(scores) == ["a", "c", "b", "a2"]


def test_images_of_other_classes_are_not_similar() -> None:
    detections = {
        "a": (detection("rust", 0.5, 0.9),),
        "same": (detection("rust", 0.5, 0.8),),
        "other": (detection("plum", 0.5, 0.7),),
        "far": (detection("rust", 0.5, 0.1),),
    }
    vectors = {"a": (1.0, 0.0), "same": (1.0, 0.2), "other": (1.0, 0.1), "far": (-1.0, 0.0)}
    order = ranking(ppal_scores(pool(detections, vectors, budget=3)))
    assert order[0] == "a"
    assert order.index("other") < order.index("same")


def test_images_that_are_not_uncertain_are_not_in_the_pool() -> None:
    keys = [f"k{i:02}" for i in range(12)]
    detections = {
        key: (detection("rust", 0.5, 1.0 if i < POOL_FACTOR else 0.01),) for i, key in enumerate(keys)
    }
    vectors = {key: (1.0, 0.1 * i, (-1.0) ** i) for i, key in enumerate(keys)}
    assert ranking(ppal_scores(pool(detections, vectors, budget=1)))[0] in keys[:POOL_FACTOR]
