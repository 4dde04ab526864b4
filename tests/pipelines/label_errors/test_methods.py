"""Tests of the methods that search for label errors, on labels in which the errors are known."""

from __future__ import annotations

import numpy as np
import pytest

from dsmoe_core.schema import Box, LabelledImage, Prediction
from pipelines.benchmarks.label_error_table import label_error_table
from pipelines.benchmarks.label_errors import (
    average_precision,
    hits_of,
    measure_gate,
    measure_label_errors,
    plant_errors,
)
from pipelines.label_errors.calibration import out_of_fold_probabilities
from pipelines.label_errors.data import LabelsToCheck
from pipelines.label_errors.label_error import ErrorKind
from pipelines.label_errors.methods import LABEL_ERROR_METHODS
from pipelines.label_errors.mistakenness import mistakenness_of_class, mistakenness_of_location
from pipelines.label_errors.objectlab import auxiliary_inputs
from tests.pipelines.label_errors.scene import CLASSES, make_scene

Scene = tuple[list[LabelledImage], dict[str, Prediction]]


@pytest.fixture(scope="module")
def scene() -> Scene:
    return make_scene(20)


def test_planted_errors_are_disjoint_and_counted(scene: Scene) -> None:
    labelled, _ = scene
    planted = plant_errors(labelled, CLASSES, seed=3)
    assert planted.counts == {"misplaced": 6, "mislabelled": 6, "missed": 6}
    assert not planted.wrong[ErrorKind.MISPLACED] & planted.wrong[ErrorKind.MISLABELLED]
    before = {item.image.key: item.annotations for item in labelled}
    for item in planted.labelled:
        key = item.image.key
        dropped = planted.dropped.get(key, ())
        assert len(item.annotations) == len(before[key]) - len(dropped)
        kept = [a for a in before[key] if a not in dropped]
        for index, (old, new) in enumerate(zip(kept, item.annotations, strict=True)):
            assert (old.label != new.label) == ((key, index) in planted.wrong[ErrorKind.MISLABELLED])
            assert (old.box != new.box) == ((key, index) in planted.wrong[ErrorKind.MISPLACED])
            assert new.box.inside(item.image.width, item.image.height, tolerance=0)
    again = plant_errors(labelled, CLASSES, seed=3)
    assert again.labelled == planted.labelled
    assert plant_errors(labelled, CLASSES, seed=4).labelled != planted.labelled


@pytest.mark.parametrize("method", LABEL_ERROR_METHODS)
def test_scores_are_ranked_and_within_zero_and_one(scene: Scene, method: str) -> None:
    labelled, predictions = scene
    errors = LABEL_ERROR_METHODS[method].find(labelled, predictions, CLASSES)
    scores = [error.score for error in errors]
    assert scores == sorted(scores, reverse=True)
    assert 0 <= scores[-1] <= scores[0] <= 1
    boxes = sum(len(item.annotations) for item in labelled)
    for kind in (ErrorKind.MISPLACED, ErrorKind.MISLABELLED):
        of_kind = [(e.image.key, e.annotation) for e in errors if e.kind is kind]
        assert len(of_kind) == len(set(of_kind)) == boxes


def test_calibrated_method_finds_every_planted_kind(scene: Scene) -> None:
    labelled, predictions = scene
    planted = plant_errors(labelled, CLASSES, seed=1)
    errors = LABEL_ERROR_METHODS["dsmoe"].find(planted.labelled, predictions, CLASSES)
    for kind in ErrorKind:
        hits = hits_of(errors, kind, planted)
        assert average_precision(hits, planted.counts[str(kind)]) > 0.9


def test_errors_name_the_box_and_the_suggestion(scene: Scene) -> None:
    labelled, predictions = scene
    planted = plant_errors(labelled, CLASSES, seed=1)
    errors = LABEL_ERROR_METHODS["dsmoe"].find(planted.labelled, predictions, CLASSES)
    by_key = {item.image.key: item for item in planted.labelled}
    swap = next(e for e in errors if e.kind is ErrorKind.MISLABELLED)
    annotation = by_key[swap.image.key].annotations[swap.annotation or 0]
    assert (annotation.box, annotation.label) == (swap.box, swap.label)
    assert {swap.label, swap.suggested_label} == set(CLASSES)
    gap = next(e for e in errors if e.kind is ErrorKind.MISSED)
    assert gap.annotation is None
    assert gap.to_dict()["suggested_box"] == [round(v, 2) for v in gap.box.corners]


def test_objectlab_inputs_give_the_scores_of_cleanlabs_own_inputs(scene: Scene) -> None:
    rank = pytest.importorskip("cleanlab.object_detection.rank")
    labelled, predictions = scene[0][:4], scene[1]
    labels, arrays, detections = [], [], []
    for item in labelled:
        found = sorted(predictions[item.image.key].detections, key=lambda d: CLASSES.index(d.label))
        detections.append(found)
        per_class = np.empty(len(CLASSES), dtype=object)
        for i, name in enumerate(CLASSES):
            rows = [(*d.box.corners, d.score) for d in found if d.label == name]
            per_class[i] = np.array(rows).reshape(-1, 5)
        arrays.append(per_class)
        corners = np.array([a.box.corners for a in item.annotations])
        labels.append(
            {"bboxes": corners, "labels": np.array([CLASSES.index(a.label) for a in item.annotations])}
        )
    ours = auxiliary_inputs(labelled, detections, CLASSES)
    for name, threshold in (
        ("compute_overlooked_box_scores", "high_probability_threshold"),
        ("compute_badloc_box_scores", "low_probability_threshold"),
        ("compute_swap_box_scores", "high_probability_threshold"),
    ):
        score = getattr(rank, name)
        theirs = score(labels=labels, predictions=arrays, **{threshold: 0.4})
        for a, b in zip(theirs, score(auxiliary_inputs=ours, **{threshold: 0.4}), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)


def test_mistakenness_has_the_values_of_fiftyones_formulas() -> None:
    assert mistakenness_of_class(0.8, same_class=True) == pytest.approx(0.1)
    assert mistakenness_of_class(0.8, same_class=False) == pytest.approx(0.9)
    assert mistakenness_of_location(0.8, iou=1.0) == pytest.approx(0.1)
    assert mistakenness_of_location(0.8, iou=0.5) == pytest.approx(0.9)
    assert mistakenness_of_location(0.0, iou=0.6) == 0.5


def test_out_of_fold_probabilities_do_not_see_the_target_of_the_row() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 2))
    targets = (features[:, 0] > 0).astype(np.intp)
    groups = np.arange(60)
    before = out_of_fold_probabilities(features, targets, 2, groups, penalty=1.0)
    assert before.sum(axis=1) == pytest.approx(np.ones(60))
    assert ((before[:, 1] > 0.5) == (targets == 1)).mean() > 0.9
    flipped = targets.copy()
    flipped[0] = 1 - flipped[0]
    after = out_of_fold_probabilities(features, flipped, 2, groups, penalty=1.0)
    assert after[0] == pytest.approx(before[0])
    assert not np.allclose(after, before)


def test_average_precision_is_the_mean_precision_at_hits() -> None:
    assert average_precision([True, False, True, False], 2) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision([True], 4) == pytest.approx(0.25)
    assert average_precision([], 3) == 0.0


def test_one_class_and_no_box_are_no_error() -> None:
    labelled, predictions = make_scene(2)
    image = labelled[0].image
    empty = [LabelledImage(image, ())]
    blank = {image.key: Prediction(image.key, (), predictions[image.key].routing, 0.0, "m+b")}
    for method in LABEL_ERROR_METHODS.values():
        assert method.find(empty, blank, CLASSES) == []
        assert all(e.kind is ErrorKind.MISSED for e in method.find(empty, predictions, CLASSES))


def test_benchmark_reports_every_method_and_kind() -> None:
    labelled, predictions = make_scene(8)
    measured = measure_label_errors(labelled, predictions, CLASSES, seeds=[0])
    assert measured["boxes"] == 48
    assert measured["planted"] == {"misplaced": 2, "mislabelled": 2, "missed": 2}
    assert set(measured["methods"]) == set(LABEL_ERROR_METHODS)
    for row in measured["methods"].values():
        assert all(0 <= row[kind]["ap"] <= 1 for kind in measured["planted"])


def test_benchmark_of_the_gate_refuses_wrong_batches_only() -> None:
    labelled, predictions = make_scene(120)
    labels = LabelsToCheck(tuple(labelled), predictions, CLASSES, {"model": 120})
    measured = measure_gate(labels, seeds=[0, 1])
    assert (measured["images"], measured["right_images"]) == (40, 80)
    rows = {row["wrong"]: row for row in measured["shares"]}
    assert (rows[0.0]["found_max"], rows[0.0]["refused"]) == (0.0, 0)
    assert rows[0.1]["found"] < rows[0.2]["found"] < rows[0.3]["found"]
    assert rows[0.3]["refused"] == 2
    table = label_error_table({"boards": {"methods": {}, "gate": measured}, "seeds": [0, 1]})
    assert "| boards, 40 images | 30% |" in table


def test_boxes_at_an_edge_are_shifted_inside_the_image() -> None:
    labelled, _ = make_scene(1)
    corner = Box(0.0, 0.0, 30.0, 30.0)
    item = LabelledImage(labelled[0].image, tuple(type(a)(corner, a.label) for a in labelled[0].annotations))
    planted = plant_errors([item], CLASSES, seed=0)
    assert all(a.box.x1 >= 0 and a.box.width == pytest.approx(30) for a in planted.labelled[0].annotations)
