"""Tests of the conversion between boxes and Label Studio results."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.studio.convert import pre_annotations, to_percent, to_result
from annotate.studio.protocol import Region
from annotate.studio.regions import read_regions
from annotate.studio.shapes import outline
from dsmoe_core.errors import BoxError
from dsmoe_core.schema import Box, Detection, Prediction, Routing

SIZE = st.integers(1, 8000)


@st.composite
def boxes_in_images(draw: st.DrawFn) -> tuple[Box, int, int]:
    width, height = draw(SIZE), draw(SIZE)
    x1 = draw(st.floats(0, width - 0.5))
    y1 = draw(st.floats(0, height - 0.5))
    x2 = draw(st.floats(x1 + 0.25, width))
    y2 = draw(st.floats(y1 + 0.25, height))
    return Box(x1, y1, x2, y2), width, height


@given(boxes_in_images())
def test_percent_round_trip_gives_the_same_box(case: tuple[Box, int, int]) -> None:
    box, width, height = case
    value = to_percent(box, width, height)
    assert all(0 <= part <= 100 for part in value.values())
    converted = outline({"type": "rectangle", "value": value}, width, height).box(width, height)
    assert converted.corners == pytest.approx(box.corners, abs=1e-6)
    assert converted.x2 <= width
    assert converted.y2 <= height


@given(boxes_in_images())
def test_result_round_trip_gives_the_same_region(case: tuple[Box, int, int]) -> None:
    box, width, height = case
    region = Region("r1", box, "open", "prediction-changed", 0.25)
    read = read_regions([to_result(region, width, height, "reason")], width, height)
    (converted,) = read.regions
    assert (read.clipped, read.conversions, read.left_out) == ({}, {}, ())
    assert replace(converted, box=box) == region


def test_box_is_clipped_within_one_pixel_and_refused_beyond() -> None:
    assert to_percent(Box(-0.5, 0.0, 100.75, 50.0), 100, 50) == {"x": 0, "y": 0, "width": 100, "height": 100}
    with pytest.raises(BoxError, match="100 x 50 px"):
        to_percent(Box(0.0, 0.0, 102.0, 50.0), 100, 50)


def test_pre_annotation_ids_depend_on_image_version_and_position_only() -> None:
    def ids(key: str, version: str, score: float) -> list[str]:
        detection = Detection(Box(1.0, 1.0, 9.0, 9.0), "open", score, {"open": score}, 0.1)
        prediction = Prediction(key, (detection, detection), Routing((0,), (1.0,), 0.0), 0.5, version)
        return [region.id for region, _ in pre_annotations(prediction)]

    assert ids("k", "v1", 0.5) == ids("k", "v1", 0.9)
    assert len({*ids("k", "v1", 0.5), *ids("k", "v2", 0.5), *ids("l", "v1", 0.5)}) == 6


@pytest.mark.parametrize(
    ("score", "second", "reason"),
    [
        (0.9, 0.05, "open 90%, or spur 5%"),
        (0.61, 0.34, "open 61%, or spur 34%: class uncertain"),
        (0.4, 0.001, "open 40%: may not be a defect"),
        (0.4, 0.3, "open 40%, or spur 30%: class uncertain, may not be a defect"),
    ],
)
def test_reason_has_the_second_best_class_and_the_uncertainty(
    score: float, second: float, reason: str
) -> None:
    detection = Detection(Box(1.0, 1.0, 9.0, 9.0), "open", score, {"open": score, "spur": second}, 0.1)
    prediction = Prediction("k", (detection,), Routing((0,), (1.0,), 0.0), 0.5, "v")
    assert pre_annotations(prediction)[0][1] == reason
