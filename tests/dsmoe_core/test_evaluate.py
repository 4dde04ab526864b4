"""The COCO numbers on cases that can be reckoned by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsmoe_core.evaluate import evaluate
from dsmoe_core.schema import Annotation, Box, Finding, LabelledPicture, Picture, PictureFindings, Routing

BOX = Box(10, 10, 30, 30)


def picture(key: str, *labels: str) -> LabelledPicture:
    return LabelledPicture(
        Picture(key, key, Path(key), 100, 100),
        tuple(Annotation(Box(10 + 40 * i, 10, 30 + 40 * i, 30), label) for i, label in enumerate(labels)),
    )


def found(key: str, *rows: tuple[Box, str, float]) -> PictureFindings:
    findings = tuple(Finding(box, label, score, {label: score}, 0.0) for box, label, score in rows)
    return PictureFindings(key, findings, Routing((0,), (1.0,), 0.0), 0.0, "m+b")


def test_all_right_is_one() -> None:
    result = evaluate([found("a", (BOX, "spur", 0.9))], [picture("a", "spur")], ["spur", "short"])
    assert (result.map50, result.map, result.recall) == pytest.approx((1.0, 1.0, 1.0))
    assert result.per_class.keys() == {"spur"}


def test_a_wrong_class_is_zero() -> None:
    result = evaluate([found("a", (BOX, "short", 0.9))], [picture("a", "spur")], ["spur", "short"])
    assert (result.map50, result.map, result.f1) == (0.0, 0.0, 0.0)


def test_nothing_found_is_zero_and_no_error() -> None:
    assert evaluate([], [picture("a", "spur")], ["spur"]).map50 == 0.0


def test_a_loose_box_counts_at_half_only() -> None:
    loose = found("a", (Box(10, 10, 30, 26), "spur", 0.9))  # IoU 0.8
    result = evaluate([loose], [picture("a", "spur")], ["spur"])
    assert result.map50 == pytest.approx(1.0)
    assert result.map == pytest.approx(0.7)


def test_a_false_alarm_above_the_true_one_halves_precision() -> None:
    rows = found("a", (Box(60, 60, 80, 80), "spur", 0.9), (BOX, "spur", 0.5))
    result = evaluate([rows], [picture("a", "spur")], ["spur"])
    assert result.map50 == pytest.approx(0.5)
    assert result.precision == pytest.approx(0.5)


def test_pictures_outside_the_test_set_are_left_out() -> None:
    rows = [found("a", (BOX, "spur", 0.9)), found("z", (BOX, "spur", 1.0))]
    assert evaluate(rows, [picture("a", "spur")], ["spur"]).map50 == pytest.approx(1.0)
