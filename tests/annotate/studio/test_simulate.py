"""The simulated annotator's corrections: always the truth, and honestly accounted for."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.studio.agreement import iou
from annotate.studio.harvest import outcomes
from annotate.studio.protocol import Region
from annotate.studio.simulate import EDIT_IOU, correct_regions
from dsmoe_core.schema import Annotation, Box, Outcome

LABELS = st.sampled_from(["open", "short", "spur"])
THRESHOLD = st.sampled_from([0.5, 0.75, 0.95])


@st.composite
def some_box(draw: st.DrawFn) -> Box:
    """On a coarse grid, so that boxes often overlap."""
    x, y = draw(st.integers(0, 12)), draw(st.integers(0, 12))
    return Box(float(x), float(y), float(x + draw(st.integers(1, 10))), float(y + draw(st.integers(1, 10))))


TRUTH = st.lists(st.builds(Annotation, some_box(), LABELS), max_size=7)
SHOWN = st.lists(st.tuples(some_box(), LABELS), max_size=7).map(
    lambda items: [Region(f"p{i}", box, label, "prediction", 0.5) for i, (box, label) in enumerate(items)]
)


def box(*corners: float) -> Box:
    return Box(*map(float, corners))


def shown(corners: tuple[float, ...], label: str = "open", name: str = "p") -> Region:
    return Region(name, box(*corners), label, "prediction", 0.5)


@given(SHOWN, TRUTH, THRESHOLD)
def test_the_result_is_the_truth_within_the_acceptance_rule(
    pre_annotations: list[Region], truth: list[Annotation], threshold: float
) -> None:
    result = correct_regions(pre_annotations, truth, threshold)
    assert Counter(r.label for r in result) == Counter(a.label for a in truth)
    fits = [
        [j for j, a in enumerate(truth) if a.label == r.label and iou(r.box, a.box) >= threshold]
        for r in result
    ]
    assert pairs(fits) == len(truth)


def pairs(fits: list[list[int]]) -> int:
    """How many regions can be given a true box of their own (Kuhn's augmenting paths)."""
    owner: dict[int, int] = {}

    def give(region: int, tried: set[int]) -> bool:
        for annotation in fits[region]:
            if annotation not in tried:
                tried.add(annotation)
                if annotation not in owner or give(owner[annotation], tried):
                    owner[annotation] = region
                    return True
        return False

    return sum(give(region, set()) for region in range(len(fits)))


@given(SHOWN, TRUTH, THRESHOLD)
def test_origins_say_what_was_done_and_the_counts_add_up(
    pre_annotations: list[Region], truth: list[Annotation], threshold: float
) -> None:
    result = correct_regions(pre_annotations, truth, threshold)
    before = {region.id: region for region in pre_annotations}
    assert len({region.id for region in result}) == len(result)
    for region in result:
        if region.origin == "manual":
            assert region.id not in before
            assert region.score is None
        elif region.origin == "prediction":
            assert region == before[region.id]
        else:
            old = before[region.id]
            assert (region.box, region.label) != (old.box, old.label)
            assert region.score == old.score
    counts = outcomes(pre_annotations, result)
    assert sum(counts.values()) - counts[Outcome.ADDED] == len(pre_annotations)
    assert sum(counts.values()) - counts[Outcome.DELETED] == len(truth)


@given(SHOWN, TRUTH)
def test_correcting_what_is_correct_changes_nothing(
    pre_annotations: list[Region], truth: list[Annotation]
) -> None:
    once = correct_regions(pre_annotations, truth)
    assert once == correct_regions(pre_annotations, truth)
    again = correct_regions(once, [Annotation(r.box, r.label) for r in once])
    assert outcomes(once, again)[Outcome.ACCEPTED] == len(once)


@pytest.mark.parametrize(
    ("region", "annotation", "outcome", "left"),
    [
        (shown((0, 0, 10, 10)), Annotation(box(0, 0, 10, 12), "open"), Outcome.ACCEPTED, (0, 0, 10, 10)),
        (shown((0, 0, 10, 10)), Annotation(box(0, 0, 10, 20), "open"), Outcome.MOVED, (0, 0, 10, 20)),
        (shown((0, 0, 10, 10)), Annotation(box(0, 0, 10, 12), "spur"), Outcome.RELABELLED, (0, 0, 10, 10)),
        (shown((0, 0, 10, 10)), Annotation(box(0, 0, 10, 20), "spur"), Outcome.RELABELLED, (0, 0, 10, 20)),
    ],
)
def test_one_box_against_one_truth(
    region: Region, annotation: Annotation, outcome: Outcome, left: tuple[float, ...]
) -> None:
    (mended,) = correct_regions([region], [annotation])
    assert mended.id == region.id
    assert (mended.box, mended.label) == (box(*left), annotation.label)
    assert outcomes([region], [mended])[outcome] == 1


def test_a_box_that_hardly_overlaps_is_deleted_and_a_new_one_drawn() -> None:
    region, annotation = shown((0, 0, 10, 10)), Annotation(box(9, 0, 19, 10), "open")
    assert 0 < iou(region.box, annotation.box) < EDIT_IOU
    (drawn,) = correct_regions([region], [annotation])
    assert (drawn.origin, drawn.box) == ("manual", annotation.box)
    counts = outcomes([region], [drawn])
    assert (counts[Outcome.DELETED], counts[Outcome.ADDED]) == (1, 1)


def test_of_two_boxes_on_one_defect_the_better_is_kept() -> None:
    worse, better = shown((0, 0, 10, 12), name="worse"), shown((0, 0, 10, 11), name="better")
    assert [r.id for r in correct_regions([worse, better], [Annotation(box(0, 0, 10, 10), "open")])] == [
        "better"
    ]


def test_an_acceptable_box_is_never_given_away_to_a_better_overlap_of_another_class() -> None:
    good, wrong = shown((0, 0, 10, 12), name="good"), shown((0, 0, 10, 10), "spur", name="wrong")
    assert [r.id for r in correct_regions([wrong, good], [Annotation(box(0, 0, 10, 10), "open")])] == ["good"]
