"""Tests of matching, agreement and merging of several annotators' boxes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.studio.agreement import MATCH_IOU, agreement, group_regions, iou, merge_regions
from annotate.studio.protocol import Region
from dsmoe_core.schema import Box

coordinates = st.integers(0, 6)


@st.composite
def regions(draw: st.DrawFn) -> Region:
    """Regions on a coarse grid, so that boxes often overlap."""
    x, y, w, h = draw(coordinates), draw(coordinates), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    origin = draw(st.sampled_from(["manual", "prediction", "prediction-changed"]))
    label = draw(st.sampled_from(["open", "spur"]))
    name = draw(st.sampled_from("pqrstuvw"))
    return Region(name, Box(float(x), float(y), float(x + w), float(y + h)), label, origin, None)


ANNOTATORS = st.lists(st.lists(regions(), max_size=4), min_size=1, max_size=4)


def region(x: float, label: str = "open", name: str = "p", origin: str = "manual") -> Region:
    return Region(name, Box(x, 0.0, x + 10, 10.0), label, origin, None)  # type: ignore[arg-type]


@given(ANNOTATORS)
def test_every_box_is_in_one_group_of_matching_boxes(annotators: list[list[Region]]) -> None:
    groups = group_regions(annotators)
    grouped = [r for group in groups for r in group]
    assert sorted(map(repr, grouped)) == sorted(repr(r) for boxes in annotators for r in boxes)
    for group in groups:
        assert len({r.label for r in group}) == 1
        assert len(group) <= len(annotators)
        for r in group:
            rest = [other for other in group if other is not r]
            assert not rest or max(iou(r.box, other.box) for other in rest) >= MATCH_IOU


@given(ANNOTATORS)
def test_agreement_is_between_zero_and_one_and_symmetric(annotators: list[list[Region]]) -> None:
    value = agreement(annotators)
    if len(annotators) == 1:
        assert value is None
    else:
        assert value is not None
        assert 0 <= value <= 1
        assert value == pytest.approx(agreement(annotators[::-1]))


@given(ANNOTATORS)
def test_majority_is_a_subset_of_the_union(annotators: list[list[Region]]) -> None:
    majority, union = merge_regions(annotators, "majority"), merge_regions(annotators, "union")
    assert set(map(repr, majority)) <= set(map(repr, union))
    assert len(union) == len(group_regions(annotators))


def test_boxes_of_a_single_annotator_are_unchanged() -> None:
    boxes = [region(0.1), region(33.3, "spur")]
    assert merge_regions([boxes], "majority") == merge_regions([boxes], "union") == tuple(boxes)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([], [], 1.0),
        ([region(0)], [], 0.0),
        ([region(0)], [region(1)], 1.0),
        ([region(0)], [region(1, "spur")], 0.0),
        ([region(0)], [region(5)], 0.0),  # IoU 1/3
        ([region(0), region(50)], [region(0)], 2 / 3),
        ([region(0)], [region(0), region(0)], 2 / 3),  # a box matches only once
    ],
)
def test_agreement_of_two_annotators(a: list[Region], b: list[Region], expected: float) -> None:
    assert agreement([a, b]) == pytest.approx(expected)


def test_majority_of_three_annotators_is_the_mean_box_of_two() -> None:
    accepted = region(0, name="shown", origin="prediction")
    moved = region(2, name="shown", origin="prediction-changed")
    (merged,) = merge_regions([[region(90)], [accepted], [moved]], "majority")
    assert (merged.id, merged.origin, merged.box) == (
        "shown",
        "prediction-changed",
        Box(1.0, 0.0, 11.0, 10.0),
    )
    assert merge_regions([[accepted], [accepted]], "majority") == (accepted,)
