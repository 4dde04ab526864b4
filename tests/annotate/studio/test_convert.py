"""Pixels to percent and back, and what is refused on the way."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.studio.controls import CLICK, FRAME
from annotate.studio.convert import (
    from_percent,
    from_result,
    parse_prompts,
    parse_regions,
    pre_annotations,
    to_percent,
    to_result,
)
from annotate.studio.protocol import Region
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
def test_percent_and_back_is_the_same_box(case: tuple[Box, int, int]) -> None:
    box, width, height = case
    value = to_percent(box, width, height)
    assert all(0 <= part <= 100 for part in value.values())
    back = from_percent(value, width, height)
    assert back.corners == pytest.approx(box.corners, abs=1e-6)
    assert back.x2 <= width
    assert back.y2 <= height


@given(boxes_in_images())
def test_a_region_survives_the_journey(case: tuple[Box, int, int]) -> None:
    box, width, height = case
    region = Region("r1", box, "open", "prediction-changed", 0.25)
    back = from_result(to_result(region, width, height, "why"), width, height)
    assert replace(back, box=box) == region


def test_a_box_a_rounding_error_outside_is_cut_and_one_further_out_is_refused() -> None:
    assert to_percent(Box(-0.5, 0.0, 100.75, 50.0), 100, 50) == {"x": 0, "y": 0, "width": 100, "height": 100}
    with pytest.raises(BoxError, match="outside its image of 100 x 50 px"):
        to_percent(Box(0.0, 0.0, 102.0, 50.0), 100, 50)


def test_a_turned_box_becomes_the_upright_box_around_it() -> None:
    value = {"x": 50.0, "y": 25.0, "width": 20.0, "height": 10.0, "rotation": 90.0}
    assert from_percent(value, 200, 100).corners == pytest.approx((90.0, 25.0, 100.0, 65.0))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"type": "brushlabels"}, "is a brushlabels"),
        ({"value": {"x": 1, "y": 1, "width": 5, "height": 5}}, r"with classes \[\]"),
        ({"value": {"x": 1, "y": 1, "width": 0, "height": 5, "rectanglelabels": ["a"]}}, "no area"),
        ({"value": {"x": 120, "y": 1, "width": 5, "height": 5, "rectanglelabels": ["a"]}}, "no area"),
        ({"value": {"x": 1, "y": 1, "width": 5, "height": 5, "rectanglelabels": ["a", "b"]}}, "one class"),
        ({"value": {"y": 1, "width": 5, "height": 5, "rectanglelabels": ["a"]}}, "x is None; expected"),
        ({"value": {"x": 1, "y": None, "width": 5, "height": 5, "rectanglelabels": ["a"]}}, "y is None"),
        ({"value": {"x": 1, "y": 1, "width": "5", "height": 5, "rectanglelabels": ["a"]}}, "width is '5'"),
    ],
)
def test_what_is_no_box_with_one_class_is_refused_and_the_rest_goes_on(
    change: dict[str, object], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    good = to_result(Region("good", Box(1.0, 1.0, 9.0, 9.0), "a", "manual", None), 100, 100)
    bad = {**good, "id": "bad", **change}
    with pytest.raises(BoxError, match=said):
        from_result(bad, 100, 100)
    assert [r.id for r in parse_regions([bad, good], 100, 100, "task 7")] == ["good"]
    assert "task 7" in caplog.text


def prompt(control: str, kind: str, **value: object) -> dict[str, object]:
    return {"id": control, "type": kind, "from_name": control, "value": {"x": 10, "y": 20, **value}}


def test_what_a_smart_tool_was_pointed_at_is_no_box(caplog: pytest.LogCaptureFixture) -> None:
    frame = prompt(FRAME, "rectanglelabels", width=30, height=40, rectanglelabels=["a"])
    click = prompt(CLICK, "keypointlabels", width=0.4, keypointlabels=["b"])
    not_this = {**click, "id": "not", "is_positive": False}
    results = [frame, click, not_this]
    assert parse_regions(results, 200, 100, "task 7") == ()
    first, second = parse_prompts(results, 200, 100, "task 7")
    assert (first.label, first.box.corners) == ("a", pytest.approx((20.0, 20.0, 80.0, 60.0)))
    assert (second.label, second.box.corners) == ("b", pytest.approx((19.0, 19.0, 21.0, 21.0)))
    assert not caplog.text


def test_pre_annotation_ids_depend_on_image_version_and_place_alone() -> None:
    def ids(key: str, version: str, score: float) -> list[str]:
        found = Detection(Box(1.0, 1.0, 9.0, 9.0), "open", score, {"open": score}, 0.1)
        detections = Prediction(key, (found, found), Routing((0,), (1.0,), 0.0), 0.5, version)
        return [region.id for region, _ in pre_annotations(detections)]

    assert ids("k", "v1", 0.5) == ids("k", "v1", 0.9)
    assert len({*ids("k", "v1", 0.5), *ids("k", "v2", 0.5), *ids("l", "v1", 0.5)}) == 6


@pytest.mark.parametrize(
    ("score", "other", "said"),
    [
        (0.9, 0.05, "open 90%, or spur 5%"),
        (0.61, 0.34, "open 61%, or spur 34%: unsure which class"),
        (0.4, 0.001, "open 40%: unsure whether it is a defect"),
        (0.4, 0.3, "open 40%, or spur 30%: unsure which class and unsure whether it is a defect"),
    ],
)
def test_the_reason_names_the_runner_up_and_the_doubt(score: float, other: float, said: str) -> None:
    found = Detection(Box(1.0, 1.0, 9.0, 9.0), "open", score, {"open": score, "spur": other}, 0.1)
    detections = Prediction("k", (found,), Routing((0,), (1.0,), 0.0), 0.5, "v")
    assert pre_annotations(detections)[0][1] == said
