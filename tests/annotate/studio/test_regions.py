"""Tests of reading regions: every result is a region, is left out with a reason, or is no region."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.studio.controls import CLICK, FRAME, IMAGE_CHOICE, NOTE
from annotate.studio.convert import to_result
from annotate.studio.protocol import Region
from annotate.studio.regions import read_prompts, read_regions
from dsmoe_core.data.import_account import Conversion, Reason
from dsmoe_core.schema import Box

VALUE = {"x": 10, "y": 20, "width": 30, "height": 40}


def rectangle(name: object = "r", labels: object = ("open",), **value: Any) -> dict[str, Any]:
    classes = list(labels) if isinstance(labels, tuple) else labels
    return {"id": name, "type": "rectanglelabels", "value": {**VALUE, **value, "rectanglelabels": classes}}


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (rectangle(labels=()), Reason.NO_CLASS),
        (rectangle(labels=None), Reason.NO_CLASS),
        (rectangle(labels=("", " ")), Reason.NO_CLASS),
        ({"id": "r", "type": "rectangle", "value": VALUE}, Reason.NO_CLASS),
        (rectangle(labels=("open", "spur")), Reason.SEVERAL_CLASSES),
        (rectangle(width=0), Reason.NO_AREA),
        ("text", Reason.NO_CLASS),
        (None, Reason.NO_CLASS),
        ({"id": "r", "type": "unknown"}, Reason.NO_CLASS),
    ],
)
def test_region_is_left_out_with_its_reason(result: Any, reason: Reason) -> None:
    read = read_regions([result, rectangle("good")], 100, 100)
    assert [region.id for region in read.regions] == ["good"]
    assert [left_out.reason for left_out in read.left_out] == [reason]
    assert read.total == 2


def test_shape_and_class_of_one_region_may_be_two_results() -> None:
    shape = {"id": "r", "type": "rectangle", "from_name": "shape", "value": VALUE}
    label = {"id": "r", "type": "labels", "from_name": "class", "value": {**VALUE, "labels": ["open"]}}
    for results in ([shape, label], [label, shape]):
        read = read_regions(results, 100, 100)
        assert [(r.id, r.label, r.box.corners) for r in read.regions] == [("r", "open", (10, 20, 40, 60))]
        assert read.left_out == ()


def test_two_places_with_one_id_are_two_regions() -> None:
    results = [rectangle(), rectangle(x=50), rectangle(None), rectangle(None)]
    read = read_regions(results, 100, 100)
    assert len({r.id for r in read.regions}) == 4
    assert [r.box.x1 for r in read.regions] == [10, 50, 10, 10]


def test_clipped_and_converted_regions_are_counted() -> None:
    results = [
        rectangle("whole"),
        rectangle("edge", x=90),
        rectangle("rounded", x=70.00004),
        rectangle("turned", x=40, width=-30),
        rectangle("both", rotation=45, x=5),
    ]
    read = read_regions(results, 100, 100)
    assert [r.id for r in read.regions] == ["whole", "edge", "rounded", "turned", "both"]
    assert read.clipped.keys() == {"edge", "both"}
    assert read.conversions == {Conversion.TURNED: 1, Conversion.ROTATED: 1}


@pytest.mark.parametrize("kind", ["choices", "textarea", "relation", "rating", "taxonomy"])
def test_results_without_a_place_are_no_regions(kind: str) -> None:
    results = [{"type": kind, "from_name": "x", "value": {"choices": ["a"]}}]
    results += [{"type": "choices", "from_name": IMAGE_CHOICE}, {"type": "textarea", "from_name": NOTE}]
    assert read_regions(results, 100, 100).total == 0


def prompt(control: str, kind: str, **value: object) -> dict[str, object]:
    return {"id": control, "type": kind, "from_name": control, "value": {"x": 10, "y": 20, **value}}


def test_smart_tool_prompts_are_not_regions() -> None:
    frame = prompt(FRAME, "rectanglelabels", width=30, height=40, rectanglelabels=["a"])
    click = prompt(CLICK, "keypointlabels", width=0.4, keypointlabels=["b"])
    negative = {**click, "id": "negative", "is_positive": False}
    results = [frame, click, negative]
    assert read_regions(results, 200, 100).total == 0
    first, second = read_prompts(results, 200, 100).regions
    assert (first.label, first.box.corners) == ("a", pytest.approx((20.0, 20.0, 80.0, 60.0)))
    assert (second.label, second.box.corners) == ("b", pytest.approx((19.0, 19.0, 21.0, 21.0)))


def test_prompt_with_wrong_values_is_listed() -> None:
    broken = [prompt(CLICK, "keypointlabels", x="here", keypointlabels=["b"]), {"from_name": FRAME}]
    assert [r.reason for r in read_prompts(broken, 200, 100).left_out] == [
        Reason.NOT_NUMBERS,
        Reason.NO_CLASS,
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=5), part, max_size=3),
    max_leaves=5,
)
KINDS = st.sampled_from(
    ["rectanglelabels", "ellipselabels", "polygonlabels", "brushlabels", "labels", "cube"]
)
RESULTS = st.fixed_dictionaries(
    {"type": KINDS},
    optional={
        "id": JSON,
        "score": JSON,
        "value": st.fixed_dictionaries(
            {},
            optional={
                **dict.fromkeys(("x", "y", "width", "height", "rotation", "radiusX", "points", "rle"), JSON),
                "rectanglelabels": JSON,
            },
        ),
    },
)


@given(st.lists(RESULTS | JSON, max_size=6))
def test_no_result_is_lost(results: list[Any]) -> None:
    read = read_regions(results, 64, 48)
    ids = [r.id for r in read.regions] + [r.id for r in read.left_out]
    assert len(ids) == len(set(ids)) == read.total
    for index in range(len(results)):  # one result more is one region more, or belongs to a region before
        assert (
            0
            <= read_regions(results[: index + 1], 64, 48).total - read_regions(results[:index], 64, 48).total
            <= 1
        )
    different = {str(i): result for i, result in enumerate(results)}
    unique = [{**r, "id": i} for i, r in different.items() if isinstance(r, dict)]
    known = sum(str(r.get("type")) != "choices" for r in unique)
    assert read_regions(unique, 64, 48).total == known


def test_taken_region_is_the_region_that_was_sent() -> None:
    region = Region("r1", Box(1.0, 2.0, 9.0, 8.0), "open", "prediction", 0.5)
    assert read_regions([to_result(region, 100, 50)], 100, 50).regions == (region,)
