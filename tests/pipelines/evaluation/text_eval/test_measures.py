"""The confusion margin and the routing, by hand and against their definitions."""

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
    likely = dict(zip(CLASSES, (spur, short, hole), strict=True))
    best = max(likely, key=lambda name: likely[name])
    return Detection(box, best, likely[best], likely, 0.0)


def prediction(key: str, *detections: Detection, routing: Routing = Routing((0,), (1.0,), 0.0)) -> Prediction:  # noqa: B008
    return Prediction(key, detections, routing, 0.0, "m+b")


def test_the_most_confident_detection_on_a_box_gives_its_margin() -> None:
    truth = [labelled("p", (BOX, "spur"), (FAR, "hole"))]
    found = prediction(
        "p",
        detection(NEAR, 0.6, 0.9, 0.1),
        detection(BOX, 0.8, 0.3, 0.2),
        detection(Box(60, 60, 90, 90), 1, 0, 0),
    )
    seen = box_probabilities(match_images({"p": found}, truth), CLASSES)
    assert seen.probabilities.tolist() == [[0.6, 0.9, 0.1], [0, 0, 0]]  # the second is not found
    assert margins(seen) == pytest.approx([-0.3, 0.0])
    assert most_confused_classes(seen) == [1, None, None]


def test_one_class_has_nobody_to_be_confused_with() -> None:
    found = prediction("p", Detection(BOX, "spur", 0.7, {"spur": 0.7}, 0.0))
    seen = box_probabilities(match_images({"p": found}, [labelled("p", (BOX, "spur"))]), ["spur"])
    assert margins(seen) == pytest.approx([0.7])
    assert most_confused_classes(seen) == [None]


@pytest.mark.parametrize("seed", range(3))
def test_resampled_margins_are_those_of_images_drawn_again(seed: int) -> None:
    detections, truth = random_scene(seed)
    seen = box_probabilities(match_images(detections, truth), CLASSES)
    counts = resample_counts(len(truth), 20, seed)
    whole, resampled = mean_margins(seen, counts)
    every = margins(seen)
    for c in range(len(CLASSES)):
        of_class = seen.label == c
        assert whole[c] == pytest.approx(every[of_class].mean())
        for b, count in enumerate(counts):
            again = np.repeat(every[of_class], count[seen.image[of_class]])
            assert resampled[b, c] == pytest.approx(again.mean() if again.size else np.nan, nan_ok=True)


def test_a_class_without_a_true_box_has_no_margin() -> None:
    seen = box_probabilities(match_images({}, [labelled("p", (BOX, "spur"))]), CLASSES)
    whole, resampled = mean_margins(seen, np.array([[1], [0]]))
    assert whole == pytest.approx([0.0, np.nan, np.nan], nan_ok=True)
    assert resampled == pytest.approx(np.array([[0.0, np.nan, np.nan], [np.nan] * 3]), nan_ok=True)


shares = st.lists(st.floats(0.01, 1), min_size=4, max_size=4).map(lambda v: np.array([v]) / sum(v))


@given(shares, shares)
def test_a_divergence_is_symmetric_and_between_nothing_and_all(p: np.ndarray, q: np.ndarray) -> None:
    assert 0 <= divergence(p, q)[0] <= 1
    assert divergence(p, q) == pytest.approx(divergence(q, p))
    assert divergence(p, p) == pytest.approx([0], abs=1e-12)


def test_a_divergence_by_hand() -> None:
    one, other = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    assert divergence(one, other) == [1.0]
    assert divergence(one, np.array([[0.5, 0.5]])) == pytest.approx([0.311278], abs=1e-6)


def test_only_images_that_show_one_of_two_classes_tell_them_apart() -> None:
    truth = [
        labelled("a", (BOX, "spur")),
        labelled("b", (BOX, "short")),
        labelled("both", (BOX, "spur"), (FAR, "short")),
        labelled("none"),
    ]
    routings = [Routing((0, 1), (0.75, 0.25), 0.0), Routing((2,), (1.0,), 0.0)]
    found = {"a": routings[0], "b": routings[1], "both": routings[0], "none": routings[1]}
    routed = ImageRouting.of({key: prediction(key, routing=r) for key, r in found.items()}, truth, CLASSES)
    assert routed.weights.tolist() == [[0.75, 0.25, 0], [0, 0, 1], [0.75, 0.25, 0], [0, 0, 1]]
    assert routed.images(0, 1) == (1, 1)
    counts = np.array([[1, 1, 1, 1], [0, 2, 1, 1]])
    assert routed.apart(0, 1, counts) == pytest.approx([1.0, np.nan], nan_ok=True)
    assert routed.per_class().tolist() == [[0.75, 0.25, 0], [0.375, 0.125, 0.5], [0, 0, 0]]
