"""Tests of the plain values of a review sample."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.review.sample import Layout, ReviewSample, describe, expert_name, fingerprint, weights_vector
from dsmoe_core.schema import Annotation, Box, Detection, ImageRecord, Prediction, Routing

IMAGE = ImageRecord("a" * 64, "line 1/plate.png", Path("/images/plate.png"), 200, 100)
DENT = Detection(Box(20.0, 10.0, 60.0, 60.0), "dent", 0.7, {"scratch": 0.2, "dent": 0.7}, 0.5)
PREDICTION = Prediction(IMAGE.key, (DENT,), Routing((2, 0), (0.75, 0.25), 0.9), 0.5, "m1+b1")
SAMPLE = ReviewSample(
    IMAGE, (Annotation(Box(0.0, 0.0, 200.0, 50.0), "scratch"),), PREDICTION, ("round 1", "ranked")
)
LAYOUT = Layout(("scratch", "dent"), 4)


def test_detection_has_entropy_and_second_best_class() -> None:
    [detection] = describe(SAMPLE, LAYOUT)["predictions"]
    assert detection == {
        "label": "dent",
        "bounding_box": [0.1, 0.1, 0.2, 0.5],
        "confidence": 0.7,
        "entropy": 0.5,
        "probs": [0.2, 0.7],
        "second_best": "scratch",
        "second_probability": 0.2,
        "expert": None,
    }


def test_detection_names_the_expert_at_its_centre() -> None:
    routed = replace(PREDICTION, detections=(replace(DENT, expert=2),))
    [detection] = describe(replace(SAMPLE, prediction=routed), LAYOUT)["predictions"]
    assert detection["expert"] == "expert 3"


def test_sample_has_ground_truth_uncertainty_experts_and_tags() -> None:
    fields = describe(SAMPLE, LAYOUT)
    assert fields["ground_truth"] == [{"label": "scratch", "bounding_box": [0.0, 0.0, 1.0, 0.5]}]
    assert (fields["uncertainty"], fields["routing_entropy"], fields["version"]) == (0.5, 0.9, "m1+b1")
    assert fields["experts"] == ["expert 3", "expert 1"]
    assert fields["lead_expert"] == "expert 3"
    assert fields["gating_weights"] == [0.25, 0.0, 0.75, 0.0]
    assert fields["loop_tags"] == ["round 1", "ranked"]
    assert fields["labelled"] is True


def test_missing_annotations_and_prediction_differ_from_empty_ones() -> None:
    unlabelled = describe(ReviewSample(IMAGE, None, None), LAYOUT)
    assert (unlabelled["ground_truth"], unlabelled["predictions"], unlabelled["labelled"]) == (
        None,
        None,
        False,
    )
    assert (unlabelled["uncertainty"], unlabelled["gating_weights"], unlabelled["lead_expert"]) == (
        None,
        None,
        None,
    )
    clean = describe(ReviewSample(IMAGE, (), replace(PREDICTION, detections=())), LAYOUT)
    assert (clean["ground_truth"], clean["predictions"], clean["labelled"]) == ([], [], True)


def test_single_class_has_no_second_best() -> None:
    single_class = replace(PREDICTION, detections=(replace(DENT, probabilities={"dent": 0.7}),))
    [detection] = describe(replace(SAMPLE, prediction=single_class), LAYOUT)["predictions"]
    assert (detection["second_best"], detection["second_probability"]) == (None, None)
    assert detection["probs"] == [0.0, 0.7]


def test_layout_keeps_the_order_of_the_vocabulary_and_adds_classes_of_annotations() -> None:
    stain = ReviewSample(IMAGE, (Annotation(Box(0.0, 0.0, 5.0, 5.0), "stain"),), None)
    assert Layout.of([SAMPLE, stain]) == Layout(("scratch", "dent", "stain"), 3)
    assert Layout.of([]) == Layout((), 0)


def test_fingerprint_changes_only_with_the_content() -> None:
    original = fingerprint(describe(SAMPLE, LAYOUT))
    assert fingerprint(describe(replace(SAMPLE), LAYOUT)) == original
    changed = [
        replace(SAMPLE, annotations=()),
        replace(SAMPLE, tags=("round 2", "ranked")),
        replace(SAMPLE, prediction=replace(PREDICTION, uncertainty=0.51)),
        replace(SAMPLE, image=replace(IMAGE, path=Path("/elsewhere/plate.png"))),
    ]
    fingerprints = [fingerprint(describe(sample, LAYOUT)) for sample in changed]
    assert len({original, *fingerprints}) == 5
    assert fingerprint(describe(SAMPLE, Layout(LAYOUT.classes, 8))) != original


@given(
    st.lists(st.integers(0, 15), unique=True, min_size=1, max_size=5),
    st.floats(0.01, 1.0),
)
def test_weights_vector_has_fixed_length_and_keeps_every_weight(experts: list[int], first: float) -> None:
    total = first + len(experts) - 1
    weights = tuple(w / total for w in (first, *[1.0] * (len(experts) - 1)))
    vector = weights_vector(Routing(tuple(experts), weights, 0.0), 16)
    assert len(vector) == 16
    assert sum(vector) == pytest.approx(1.0)
    assert [vector[i] for i in experts] == list(weights)


@given(st.integers(1, 9000), st.integers(1, 9000), st.data())
def test_relative_boxes_convert_back_to_pixels(width: int, height: int, data: st.DataObject) -> None:
    x1 = data.draw(st.floats(0.0, width - 0.5))
    y1 = data.draw(st.floats(0, height - 0.5))
    x2 = data.draw(st.floats(x1 + 0.25, width))
    y2 = data.draw(st.floats(y1 + 0.25, height))
    image = replace(IMAGE, width=width, height=height)
    sample = ReviewSample(image, (Annotation(Box(x1, y1, x2, y2), "dent"),), None)
    fields = describe(sample, LAYOUT)
    json.dumps(fields)  # plain values only
    left, top, relative_width, relative_height = fields["ground_truth"][0]["bounding_box"]
    assert 0 <= left <= 1
    assert 0 <= top <= 1
    pixels = (
        left * width,
        top * height,
        (left + relative_width) * width,
        (top + relative_height) * height,
    )
    assert pixels == pytest.approx((x1, y1, x2, y2), abs=1e-6)


def test_expert_names_start_at_one() -> None:
    assert expert_name(0) == "expert 1"
