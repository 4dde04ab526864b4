"""Confusion margin and routing divergence, with values computed by hand and by their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenes import CLASSES, labelled, random_scene

from dsmoe_core.evaluation.bootstrap import resample_counts
from dsmoe_core.evaluation.matching import match_images
from dsmoe_core.schema import Box, Detection, Prediction, Routing
from pipelines.evaluation.text_eval.margin import (
    box_probabilities,
    margins,
    mean_margins,
    most_confused_classes,
)
from pipelines.evaluation.text_eval.routing import ImageRouting, divergence

BOX, FAR = Box(0, 0, 20, 20), Box(100, 100, 140, 140)
NEAR = Box(2, 0, 22, 20)


def detection(box: Box, spur: float, short: float, hole: float) -> Detection:
    probabilities = dict(zip(CLASSES, (spur, short, hole), strict=True))
    best = max(probabilities, key=lambda name: probabilities[name])
    return Detection(box, best, probabilities[best], probabilities, 0.0)


def prediction(key: str, *detections: Detection, routing: Routing = Routing((0,), (1.0,), 0.0)) -> Prediction:  # noqa: B008
    return Prediction(key, detections, routing, 0.0, "m+b")


def test_margin_is_that_of_the_highest_scoring_detection_on_the_box() -> None:
    truth = [labelled("p", (BOX, "spur"), (FAR, "hole"))]
    detections = prediction(
        "p",
        detection(NEAR, 0.6, 0.9, 0.1),
        detection(BOX, 0.8, 0.3, 0.2),
        detection(Box(60, 60, 90, 90), 1, 0, 0),
    )
    boxes = box_probabilities(match_images({"p": detections}, truth), CLASSES)
    assert boxes.probabilities.tolist() == [[0.6, 0.9, 0.1], [0, 0, 0]]  # the second has no detection
    assert margins(boxes) == pytest.approx([-0.3, 0.0])
    assert most_confused_classes(boxes) == [1, None, None]


def test_single_class_has_no_confused_class() -> None:
    detections = prediction("p", Detection(BOX, "spur", 0.7, {"spur": 0.7}, 0.0))
    boxes = box_probabilities(match_images({"p": detections}, [labelled("p", (BOX, "spur"))]), ["spur"])
    assert margins(boxes) == pytest.approx([0.7])
    assert most_confused_classes(boxes) == [None]


@pytest.mark.parametrize("seed", range(3))
def test_resampled_margins_equal_those_of_repeated_images(seed: int) -> None:
    predictions, truth = random_scene(seed)
    boxes = box_probabilities(match_images(predictions, truth), CLASSES)
    counts = resample_counts(len(truth), 20, seed)
    original, resampled = mean_margins(boxes, counts)
    per_box = margins(boxes)
    for c in range(len(CLASSES)):
        of_class = boxes.label == c
        assert original[c] == pytest.approx(per_box[of_class].mean())
        for b, count in enumerate(counts):
            repeated = np.repeat(per_box[of_class], count[boxes.image[of_class]])
            expected = repeated.mean() if repeated.size else np.nan
            assert resampled[b, c] == pytest.approx(expected, nan_ok=True)


def test_class_without_boxes_has_no_margin() -> None:
    boxes = box_probabilities(match_images({}, [labelled("p", (BOX, "spur"))]), CLASSES)
    original, resampled = mean_margins(boxes, np.array([[1], [0]]))
    assert original == pytest.approx([0.0, np.nan, np.nan], nan_ok=True)
    assert resampled == pytest.approx(np.array([[0.0, np.nan, np.nan], [np.nan] * 3]), nan_ok=True)


distributions = st.lists(st.floats(0.01, 1), min_size=4, max_size=4).map(lambda v: np.array([v]) / sum(v))


@given(distributions, distributions)
def test_divergence_is_symmetric_and_between_0_and_1(p: np.ndarray, q: np.ndarray) -> None:
    assert 0 <= divergence(p, q)[0] <= 1
    assert divergence(p, q) == pytest.approx(divergence(q, p))
    assert divergence(p, p) == pytest.approx([0], abs=1e-12)


def test_divergence_by_hand() -> None:
    first, second = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    assert divergence(first, second) == [1.0]
    assert divergence(first, np.array([[0.5, 0.5]])) == pytest.approx([0.311278], abs=1e-6)


def test_class_divergence_ignores_images_of_both_or_neither_class() -> None:
    truth = [
        labelled("a", (BOX, "spur")),
        labelled("b", (BOX, "short")),
        labelled("both", (BOX, "spur"), (FAR, "short")),
        labelled("none"),
    ]
    routings = [Routing((0, 1), (0.75, 0.25), 0.0), Routing((2,), (1.0,), 0.0)]
    by_key = {"a": routings[0], "b": routings[1], "both": routings[0], "none": routings[1]}
    predictions = {key: prediction(key, routing=routing) for key, routing in by_key.items()}
    routing = ImageRouting.of(predictions, truth, CLASSES)
    assert routing.weights.tolist() == [[0.75, 0.25, 0], [0, 0, 1], [0.75, 0.25, 0], [0, 0, 1]]
    assert routing.image_counts(0, 1) == (1, 1)
    counts = np.array([[1, 1, 1, 1], [0, 2, 1, 1]])
    assert routing.class_divergence(0, 1, counts) == pytest.approx([1.0, np.nan], nan_ok=True)
    assert routing.per_class().tolist() == [[0.75, 0.25, 0], [0.375, 0.125, 0.5], [0, 0, 0]]
