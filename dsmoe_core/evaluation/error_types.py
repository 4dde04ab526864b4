"""Error types of detections, and how much mAP@.5 each type costs (TIDE).

After Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", 2020, with its IoU
limits 0.5 and 0.1. A false detection has the first type that applies, in TIDE's order: location, class,
duplicate, background, both. The cost of a type is the gain in mAP@.5 if an oracle repaired all errors of this
type alone. The gains do not add up: one repair can change the value of another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from dsmoe_core.evaluation.average_precision import average_precision
from dsmoe_core.evaluation.matching import IOU_THRESHOLD, UNMATCHED, ImageMatches

BACKGROUND_IOU = 0.1
"""Below this IoU a detection does not belong to a ground-truth box."""


class ErrorType(StrEnum):
    """Error types: five of detections, one of ground-truth boxes."""

    CLASS = "class"
    LOCATION = "location"
    BOTH = "both"
    DUPLICATE = "duplicate"
    BACKGROUND = "background"
    MISSED = "missed"


DESCRIPTIONS = {
    ErrorType.CLASS: "IoU of 0.5 or more with a box of another class. Repair: it gets the right class.",
    ErrorType.LOCATION: "IoU of 0.1 to 0.5 with a box of its class. Repair: it is moved onto the box.",
    ErrorType.BOTH: "IoU of 0.1 to 0.5 with a box of another class. Repair: it is removed.",
    ErrorType.DUPLICATE: "On a box that a higher-scoring detection has matched. Repair: it is removed.",
    ErrorType.BACKGROUND: "IoU below 0.1 with every box. Repair: it is removed.",
    ErrorType.MISSED: "A ground-truth box without any detection, even a wrong one. Repair: it is removed.",
}


@dataclass(frozen=True, slots=True)
class ErrorCost:
    """Number and cost of the errors of one type.

    Attributes:
        count: errors among all detections.
        above_threshold: errors with at least the score threshold; for MISSED all of them.
        map50_gain: gain in mAP@.5 if this type is repaired.
    """

    count: int
    above_threshold: int
    map50_gain: float


@dataclass(frozen=True, slots=True)
class _Row:
    """One detection.

    Attributes:
        kind: its error type; None for a true positive.
        goal: image key and index of the ground-truth box that it matches, or would match without its error.
        goal_label: class of that box; empty if there is none.
    """

    label: str
    score: float
    kind: ErrorType | None
    goal: tuple[str, int]
    goal_label: str


def error_costs(
    matched: Sequence[ImageMatches], classes: Sequence[str], threshold: float
) -> dict[ErrorType, ErrorCost]:
    """Count the errors of every type and compute their costs.

    Args:
        threshold: score threshold for ``ErrorCost.above_threshold``.
    """
    rows = sorted((row for image in matched for row in _rows(image)), key=lambda row: -row.score)
    boxes = {name: sum(a.label == name for p in matched for a in p.truth) for name in classes}
    missed = _missed(matched, rows)
    boxes_not_missed = {name: count - missed.count(name) for name, count in boxes.items()}
    original = [(row.label, row.score, row.kind is None) for row in rows]
    before = _map50(original, boxes)
    costs: dict[ErrorType, ErrorCost] = {}
    for kind in ErrorType:
        scores = [row.score for row in rows if row.kind is kind]
        above = sum(score >= threshold for score in scores)
        if kind is ErrorType.MISSED:
            gain = _map50(original, boxes_not_missed) - before
            costs[kind] = ErrorCost(len(missed), len(missed), gain)
        else:
            costs[kind] = ErrorCost(len(scores), above, _map50(list(_repaired(rows, kind)), boxes) - before)
    return costs


def _rows(image: ImageMatches) -> Iterator[_Row]:
    same = np.where(image.same_class, image.iou, 0.0)
    other = np.where(image.same_class, 0.0, image.iou)
    for i, detection in enumerate(image.detections):
        if image.truth_index[i] != UNMATCHED:
            kind, goal = None, int(image.truth_index[i])
        else:
            kind, goal = _classify(same[i].tolist(), other[i].tolist())
        label = image.truth[goal].label if goal != UNMATCHED else ""
        yield _Row(detection.label, detection.score, kind, (image.image.key, goal), label)


def _classify(same: list[float], other: list[float]) -> tuple[ErrorType, int]:
    """Error type of a false detection and, for class and location errors, the box that it should have
    matched.

    Args:
        same, other: its IoU with each ground-truth box of its class and of other classes, 0 elsewhere.
    """
    best_same, best_other = max(same, default=0.0), max(other, default=0.0)
    if BACKGROUND_IOU <= best_same < IOU_THRESHOLD:
        return ErrorType.LOCATION, same.index(best_same)
    if best_other >= IOU_THRESHOLD:
        return ErrorType.CLASS, other.index(best_other)
    if best_same >= IOU_THRESHOLD:
        return ErrorType.DUPLICATE, UNMATCHED
    return (ErrorType.BOTH if best_other >= BACKGROUND_IOU else ErrorType.BACKGROUND), UNMATCHED


def _missed(matched: Sequence[ImageMatches], rows: Sequence[_Row]) -> list[str]:
    """Classes of the ground-truth boxes that no detection matches, or would match without one error."""
    touched = {row.goal for row in rows}
    return [a.label for p in matched for i, a in enumerate(p.truth) if (p.image.key, i) not in touched]


def _repaired(rows: Sequence[_Row], kind: ErrorType) -> Iterator[tuple[str, float, bool]]:
    """Class, score and correctness of the detections, by descending score, with one error type repaired.

    If several detections would match the same box after the repair, the first one does and the others are
    removed. Detections whose box is matched already are removed, too.
    """
    matched = {row.goal for row in rows if row.kind is None}
    for row in rows:
        if row.kind is not kind:
            yield row.label, row.score, row.kind is None
        elif row.goal_label and row.goal not in matched:
            matched.add(row.goal)
            yield row.goal_label, row.score, True


def _map50(rows: Sequence[tuple[str, float, bool]], boxes: dict[str, int]) -> float:
    """mAP@.5 over the classes that have boxes; 0 if none has."""
    correct: dict[str, list[bool]] = {name: [] for name in boxes}
    for label, _, is_correct in rows:
        correct[label].append(is_correct)
    precisions = [
        float(average_precision(np.array([correct[name]], dtype=bool), count)[0])
        for name, count in boxes.items()
        if count
    ]
    return sum(precisions) / len(precisions) if precisions else 0.0
