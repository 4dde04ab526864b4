"""Why detections are wrong, and what each kind of error costs.

After TIDE (Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", 2020), with its
overlaps 0.5 and 0.1 and in its order: location, class, duplicate, background, both; a false detection is of
the
first kind that fits. What a kind costs is the gain in mAP@.5 when all errors of this kind alone are repaired,
as an oracle would. The gains of the kinds do not add up: one repair may make another worth more, or needless.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from dsmoe_core.evaluation.average_precision import average_precision
from dsmoe_core.evaluation.matching import IOU_THRESHOLD, UNMATCHED, ImageMatches

NEAR = 0.1
"""Below this overlap a detection has nothing to do with a true box."""


class ErrorType(StrEnum):
    """Kinds of error: five of detections, one of true boxes."""

    CLASS = "class"
    LOCATION = "location"
    BOTH = "both"
    DUPLICATE = "duplicate"
    BACKGROUND = "background"
    MISSED = "missed"


MEANING = {
    ErrorType.CLASS: "on a true box (overlap from 0.5) of another class. Repaired: it gets the right class.",
    ErrorType.LOCATION: "near a true box of its class (overlap 0.1 to 0.5). Repaired: it is put there.",
    ErrorType.BOTH: "near a true box of another class (overlap 0.1 to 0.5). Repaired: it is removed.",
    ErrorType.DUPLICATE: "on a true box that a higher score has found already. Repaired: it is removed.",
    ErrorType.BACKGROUND: "where nothing is (overlap below 0.1). Repaired: it is removed.",
    ErrorType.MISSED: "a true box without a detection, even a wrong one. Repaired: it need not be found.",
}


@dataclass(frozen=True, slots=True)
class ErrorCost:
    """One kind of error.

    Attributes:
        count: errors among all detections.
        shown: of these, detections from the score threshold up (true boxes: all of them).
        map50_gain: gain in mAP@.5 when this kind is repaired.
    """

    count: int
    shown: int
    map50_gain: float


@dataclass(frozen=True, slots=True)
class _Row:
    """One detection.

    Attributes:
        kind: None where it is right.
        goal: the true box that it found or, but for its error, would have found.
        goal_label: that box's class.
    """

    label: str
    score: float
    kind: ErrorType | None
    goal: tuple[str, int]
    goal_label: str


def error_costs(
    matched: Sequence[ImageMatches], classes: Sequence[str], threshold: float
) -> dict[ErrorType, ErrorCost]:
    """Every kind of error with its number and its cost.

    Args:
        threshold: detections from this score up count as shown.
    """
    rows = sorted((row for image in matched for row in _rows(image)), key=lambda row: -row.score)
    boxes = {name: sum(a.label == name for p in matched for a in p.truth) for name in classes}
    missed = _missed(matched, rows)
    left = {name: count - missed.count(name) for name, count in boxes.items()}
    as_found = [(row.label, row.score, row.kind is None) for row in rows]
    before = _map50(as_found, boxes)
    costs: dict[ErrorType, ErrorCost] = {}
    for kind in ErrorType:
        wrong = [row.score for row in rows if row.kind is kind]
        shown = sum(score >= threshold for score in wrong)
        if kind is ErrorType.MISSED:
            costs[kind] = ErrorCost(len(missed), len(missed), _map50(as_found, left) - before)
        else:
            costs[kind] = ErrorCost(len(wrong), shown, _map50(list(_repaired(rows, kind)), boxes) - before)
    return costs


def _rows(image: ImageMatches) -> Iterator[_Row]:
    same = np.where(image.same_class, image.overlap, 0.0)
    other = np.where(image.same_class, 0.0, image.overlap)
    for i, detection in enumerate(image.detections):
        if image.truth_index[i] != UNMATCHED:
            kind, goal = None, int(image.truth_index[i])
        else:
            kind, goal = _kind(same[i].tolist(), other[i].tolist())
        label = image.truth[goal].label if goal != UNMATCHED else ""
        yield _Row(detection.label, detection.score, kind, (image.image.key, goal), label)


def _kind(same: list[float], other: list[float]) -> tuple[ErrorType, int]:
    """The kind of a false detection and, for class and location, the true box that it should have found.

    Args:
        same, other: its overlap with each true box of its class and of other classes, 0 elsewhere.
    """
    best_same, best_other = max(same, default=0.0), max(other, default=0.0)
    if NEAR <= best_same < IOU_THRESHOLD:
        return ErrorType.LOCATION, same.index(best_same)
    if best_other >= IOU_THRESHOLD:
        return ErrorType.CLASS, other.index(best_other)
    if best_same >= IOU_THRESHOLD:
        return ErrorType.DUPLICATE, UNMATCHED
    return (ErrorType.BOTH if best_other >= NEAR else ErrorType.BACKGROUND), UNMATCHED


def _missed(matched: Sequence[ImageMatches], rows: Sequence[_Row]) -> list[str]:
    """Classes of the true boxes that no detection found or, but for one error, would have found."""
    touched = {row.goal for row in rows}
    return [a.label for p in matched for i, a in enumerate(p.truth) if (p.image.key, i) not in touched]


def _repaired(rows: Sequence[_Row], kind: ErrorType) -> Iterator[tuple[str, float, bool]]:
    """Class, score and rightness of the detections, highest score first, after one kind of error is repaired.

    Of several that would find the same box then, the first does; the others are removed, as are those whose
    box was found anyway.
    """
    found = {row.goal for row in rows if row.kind is None}
    for row in rows:
        if row.kind is not kind:
            yield row.label, row.score, row.kind is None
        elif row.goal_label and row.goal not in found:
            found.add(row.goal)
            yield row.goal_label, row.score, True


def _map50(rows: Sequence[tuple[str, float, bool]], boxes: dict[str, int]) -> float:
    """mAP@.5 over the classes that have boxes; 0 where none has."""
    rights: dict[str, list[bool]] = {name: [] for name in boxes}
    for label, _, right in rows:
        rights[label].append(right)
    each = [
        float(average_precision(np.array([rights[name]], dtype=bool), count)[0])
        for name, count in boxes.items()
        if count
    ]
    return sum(each) / len(each) if each else 0.0
