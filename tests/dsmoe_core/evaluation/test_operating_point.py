"""Counts at a score threshold, the confusion matrix, and the best-F1 threshold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenes import CLASSES, labelled, prediction, scene_from_numbers, scene_numbers

from dsmoe_core.evaluation.confusion import confusion
from dsmoe_core.evaluation.matching import match_images
from dsmoe_core.evaluation.operating_point import Counts, Size, best_threshold, operating_point
from dsmoe_core.schema import Box

thresholds = st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.9, 1.0])


@given(scene_numbers, thresholds)
def test_counts_add_up_by_class_and_by_size(crowd: list[int], threshold: float) -> None:
    detections, truth = scene_from_numbers(crowd)
    point = operating_point(match_images(detections, truth), CLASSES, threshold)
    counted = [f for p in detections.values() for f in p.detections if f.score >= threshold]
    true = [a for p in truth for a in p.annotations]
    assert point.total.true_positives + point.total.false_positives == len(counted)
    assert point.total.true_positives + point.total.false_negatives == len(true)
    for name in CLASSES:
        counts = point.per_class[name]
        assert counts.true_positives + counts.false_positives == sum(f.label == name for f in counted)
        assert counts.true_positives + counts.false_negatives == sum(a.label == name for a in true)
    for size in Size:
        counts = point.per_size[size]
        assert counts.true_positives + counts.false_negatives == sum(Size.of(a.box) is size for a in true)
    assert sum(c.false_positives for c in point.per_size.values()) == point.total.false_positives


@given(scene_numbers, thresholds)
def test_confusion_matrix_has_the_right_sums_and_diagonal(crowd: list[int], threshold: float) -> None:
    detections, truth = scene_from_numbers(crowd)
    matched = match_images(detections, truth)
    table = confusion(matched, CLASSES, threshold)
    point = operating_point(matched, CLASSES, threshold)
    detected = [f.label for p in detections.values() for f in p.detections if f.score >= threshold]
    true = [a.label for p in truth for a in p.annotations]
    assert table[:-1].sum(1).tolist() == [true.count(name) for name in CLASSES]
    assert table[:, :-1].sum(0).tolist() == [detected.count(name) for name in CLASSES]
    assert np.diag(table)[:-1].tolist() == [point.per_class[name].true_positives for name in CLASSES]
    assert table[-1, -1] == 0


def test_confusion_matrix_by_hand() -> None:
    a, b, c, d = (Box(50.0 * i, 0.0, 50.0 * i + 20, 20.0) for i in range(4))
    matched = match_images(
        {
            "p": prediction(
                "p",
                (a, "spur", 0.9),  # correct
                (a, "short", 0.95),  # on a box that its own class matches
                (b, "hole", 0.8),  # a spur detected as a hole
                (c, "short", 0.7),  # background
                (d, "short", 0.1),  # correct, but below the threshold
            )
        },
        [labelled("p", (a, "spur"), (b, "spur"), (d, "short"))],
    )
    assert confusion(matched, CLASSES, 0.5).tolist() == [
        [1, 0, 1, 0],
        [0, 0, 0, 1],
        [0, 0, 0, 0],
        [0, 2, 0, 0],
    ]


@given(scene_numbers, st.sampled_from([None, *CLASSES]))
def test_best_threshold_has_the_highest_f1_of_all_scores(crowd: list[int], label: str | None) -> None:
    detections, truth = scene_from_numbers(crowd)
    matched = match_images(detections, truth)

    def f1(threshold: float) -> float:
        point = operating_point(matched, CLASSES, threshold)
        return (point.total if label is None else point.per_class[label]).f1 or 0.0

    best = best_threshold(matched, label)
    candidates = {f.score for p in detections.values() for f in p.detections}
    if best is None:
        assert all(f1(score) == 0 for score in candidates)
    else:
        assert best == max(candidates, key=lambda score: (f1(score), score))


def test_size_limits_are_those_of_coco() -> None:
    sides = {31.9: "small", 32.0: "medium", 95.9: "medium", 96.0: "large"}
    assert {side: Size.of(Box(0, 0, side, side)) for side in sides} == sides


def test_undefined_shares_are_none() -> None:
    nothing = operating_point([], CLASSES, 0.5).total
    assert (nothing.precision, nothing.recall, nothing.f1) == (None, None, None)
    assert (
        Counts(false_negatives=2).precision,
        Counts(false_negatives=2).recall,
        Counts(false_negatives=2).f1,
    ) == (None, 0.0, 0.0)
    assert Counts(3, 1, 2).f1 == pytest.approx(2 * 0.75 * 0.6 / (0.75 + 0.6))
