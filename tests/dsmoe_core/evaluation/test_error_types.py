"""Error types by hand, and their costs compared with pycocotools on repaired detections."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from scenes import CLASSES, Scene, labelled, prediction, random_scene, scene_from_numbers, scene_numbers

from dsmoe_core.evaluation.coco_metrics import evaluate
from dsmoe_core.evaluation.error_types import ErrorType, _missed, _rows, error_costs
from dsmoe_core.evaluation.matching import ImageMatches, match_images
from dsmoe_core.schema import Annotation, Box, Detection, LabelledImage, Prediction

A, B, C, D, E = (Box(40.0 * i, 0.0, 40.0 * i + 20, 20.0) for i in range(5))
LOW = 60.0


def shifted(box: Box, by: float) -> Box:
    return Box(box.x1 + by, box.y1, box.x2 + by, box.y2)


def test_each_error_type_by_hand() -> None:
    rows = [
        (A, "spur", 0.9, None),
        (shifted(A, 1), "spur", 0.8, ErrorType.DUPLICATE),
        (B, "short", 0.7, ErrorType.CLASS),
        (shifted(C, 10), "spur", 0.6, ErrorType.LOCATION),  # IoU 1/3
        (shifted(D, 10), "hole", 0.5, ErrorType.BOTH),
        (Box(0, LOW, 20, LOW + 20), "spur", 0.4, ErrorType.BACKGROUND),
    ]
    truth = [labelled("p", (A, "spur"), (B, "spur"), (C, "spur"), (D, "spur"), (E, "spur"))]
    (image,) = match_images({"p": prediction("p", *(row[:3] for row in rows))}, truth)
    assert [row.kind for row in _rows(image)] == [row[3] for row in rows]
    costs = error_costs([image], CLASSES, 0.55)
    assert {kind: cost.count for kind, cost in costs.items()} == dict.fromkeys(ErrorType, 1) | {
        ErrorType.MISSED: 2  # D, which overlaps a detection of another class, and E
    }
    assert costs[ErrorType.LOCATION].above_threshold == 1
    assert costs[ErrorType.BOTH].above_threshold == 0


def test_only_one_detection_per_box_is_repaired() -> None:
    rows = [(A, "short", 0.9), (A, "hole", 0.8)]
    matched = match_images({"p": prediction("p", *rows)}, [labelled("p", (A, "spur"))])
    costs = error_costs(matched, CLASSES, 0.5)
    assert costs[ErrorType.CLASS].count == 2
    assert costs[ErrorType.CLASS].map50_gain == pytest.approx(1.0)
    assert costs[ErrorType.MISSED].count == 0  # a class error is not a missed box, too


def repaired_scene(matched: list[ImageMatches], kind: ErrorType) -> Scene:
    """Predictions and ground truth with one error type repaired, box by box."""
    rows = sorted((row for p in matched for row in _rows(p)), key=lambda row: -row.score)
    taken = {row.goal for row in rows if row.kind is None}
    repaired: dict[tuple[str, float], Annotation | None] = {}  # scores are unique
    for row in rows:
        if row.kind is kind:
            key, goal = row.goal
            again = kind in (ErrorType.CLASS, ErrorType.LOCATION) and row.goal not in taken
            truth = next(p.truth for p in matched if p.image.key == key)
            repaired[key, row.score] = truth[goal] if again else None
            taken |= {row.goal} if again else set()
    detections, truths = {}, []
    touched = {row.goal for row in rows}
    for p in matched:
        key = p.image.key
        kept: list[Detection] = []
        for detection in p.detections:
            goal_box = repaired.get((key, detection.score), Annotation(detection.box, detection.label))
            if goal_box is not None:
                kept.append(replace(detection, box=goal_box.box, label=goal_box.label))
        detections[key] = replace(prediction(key), detections=tuple(kept))
        gone = kind is ErrorType.MISSED
        left = tuple(a for i, a in enumerate(p.truth) if not gone or (key, i) in touched)
        truths.append(LabelledImage(p.image, left))
    return detections, truths


@pytest.mark.parametrize("seed", range(8))
def test_costs_equal_the_gain_of_pycocotools(seed: int) -> None:
    detections, truth = random_scene(seed)
    matched = match_images(detections, truth)
    before = evaluate(detections.values(), truth, CLASSES).map50
    costs = error_costs(matched, CLASSES, 0.5)
    assert {kind for kind, cost in costs.items() if cost.count} > {ErrorType.CLASS, ErrorType.BACKGROUND}
    for kind, cost in costs.items():
        again, left = repaired_scene(matched, kind)
        assert cost.map50_gain == pytest.approx(evaluate(again.values(), left, CLASSES).map50 - before)


@settings(max_examples=60)
@given(scene_numbers)
def test_every_false_detection_has_one_type_and_no_gain_is_negative(crowd: list[int]) -> None:
    matched = match_images(*scene_from_numbers(crowd))
    costs = error_costs(matched, CLASSES, 0.5)
    false = sum((~p.correct).sum() for p in matched)
    assert sum(cost.count for kind, cost in costs.items() if kind is not ErrorType.MISSED) == false
    assert all(cost.map50_gain >= -1e-12 for cost in costs.values())
    unmatched = sum((p.truth_scores < 0).sum() for p in matched)
    rows = [row for p in matched for row in _rows(p)]
    assert len(_missed(matched, rows)) <= unmatched


def test_empty_inputs_have_no_errors_or_missed_boxes_only() -> None:
    nothing: dict[str, Prediction] = {}
    assert all(cost.count == 0 for cost in error_costs([], CLASSES, 0.5).values())
    costs = error_costs(match_images(nothing, [labelled("p", (A, "spur"))]), CLASSES, 0.5)
    assert costs[ErrorType.MISSED].count == 1
    assert sum(cost.count for cost in costs.values()) == 1
