"""Which boxes of several people mean the same, how far they agree, and what is kept."""

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
    """On a coarse grid, so that boxes often overlap."""
    x, y, w, h = draw(coordinates), draw(coordinates), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    origin = draw(st.sampled_from(["manual", "prediction", "prediction-changed"]))
    label = draw(st.sampled_from(["open", "spur"]))
    name = draw(st.sampled_from("pqrstuvw"))
    return Region(name, Box(float(x), float(y), float(x + w), float(y + h)), label, origin, None)


PEOPLE = st.lists(st.lists(regions(), max_size=4), min_size=1, max_size=4)


def drawn(x: float, label: str = "open", name: str = "p", origin: str = "manual") -> Region:
    return Region(name, Box(x, 0.0, x + 10, 10.0), label, origin, None)  # type: ignore[arg-type]


@given(PEOPLE)
def test_every_box_is_in_one_group_with_its_like_and_at_most_one_of_each_annotator(
    answers: list[list[Region]],
) -> None:
    found = group_regions(answers)
    assert sorted(map(repr, (r for g in found for r in g))) == sorted(
        map(repr, (r for a in answers for r in a))
    )
    for group in found:
        assert len({region.label for region in group}) == 1
        assert len(group) <= len(answers)
        for region in group:
            others = [other for other in group if other is not region]
            assert not others or max(iou(region.box, other.box) for other in others) >= MATCH_IOU


@given(PEOPLE)
def test_agreement_is_a_share_and_whole_with_oneself(answers: list[list[Region]]) -> None:
    found = agreement(answers)
    if len(answers) == 1:
        assert found is None
    else:
        assert found is not None
        assert 0 <= found <= 1
        assert found == pytest.approx(agreement(answers[::-1]))


@given(PEOPLE)
def test_what_most_drew_is_part_of_what_anybody_drew(answers: list[list[Region]]) -> None:
    most, anybody = merge_regions(answers, "majority"), merge_regions(answers, "union")
    assert set(map(repr, most)) <= set(map(repr, anybody))
    assert len(anybody) == len(group_regions(answers))


def test_one_alone_is_kept_as_drawn() -> None:
    answer = [drawn(0.1), drawn(33.3, "spur")]
    assert merge_regions([answer], "majority") == merge_regions([answer], "union") == tuple(answer)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([], [], 1.0),
        ([drawn(0)], [], 0.0),
        ([drawn(0)], [drawn(1)], 1.0),
        ([drawn(0)], [drawn(1, "spur")], 0.0),
        ([drawn(0)], [drawn(5)], 0.0),  # IoU 1/3
        ([drawn(0), drawn(50)], [drawn(0)], 2 / 3),
        ([drawn(0)], [drawn(0), drawn(0)], 2 / 3),  # one box is shared once
    ],
)
def test_agreement_of_two(one: list[Region], other: list[Region], expected: float) -> None:
    assert agreement([one, other]) == pytest.approx(expected)


def test_of_three_a_box_that_two_drew_is_kept_as_their_mean() -> None:
    shown = drawn(0, name="shown", origin="prediction")
    moved = drawn(2, name="shown", origin="prediction-changed")
    (kept,) = merge_regions([[drawn(90)], [shown], [moved]], "majority")
    assert (kept.id, kept.origin, kept.box) == ("shown", "prediction-changed", Box(1.0, 0.0, 11.0, 10.0))
    assert merge_regions([[shown], [shown]], "majority") == (shown,)
