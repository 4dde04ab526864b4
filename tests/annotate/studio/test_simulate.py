"""Tests of the simulated annotator: its result is the ground truth, and its outcomes are consistent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.studio.agreement import iou
from annotate.studio.harvest import outcomes
from annotate.studio.protocol import Region, Studio, Task
from annotate.studio.simulate import EDIT_IOU, SimulatedAnnotator, correct_regions
from dsmoe_core.schema import Annotation, Box, Detection, ImageRecord, LabelledImage, Outcome, Vocabulary

LABELS = st.sampled_from(["open", "short", "spur"])
THRESHOLD = st.sampled_from([0.5, 0.75, 0.95])


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    """Boxes on a coarse grid, so that they often overlap."""
    x, y = draw(st.integers(0, 12)), draw(st.integers(0, 12))
    return Box(float(x), float(y), float(x + draw(st.integers(1, 10))), float(y + draw(st.integers(1, 10))))


TRUTH = st.lists(st.builds(Annotation, boxes(), LABELS), max_size=7)
SHOWN = st.lists(st.tuples(boxes(), LABELS), max_size=7).map(
    lambda items: [Region(f"p{i}", box, label, "prediction", 0.5) for i, (box, label) in enumerate(items)]
)


def box(*corners: float) -> Box:
    return Box(*map(float, corners))


def pre_annotation(corners: tuple[float, ...], label: str = "open", name: str = "p") -> Region:
    return Region(name, box(*corners), label, "prediction", 0.5)


@given(SHOWN, TRUTH, THRESHOLD)
def test_result_matches_the_ground_truth_within_the_accept_iou(
    pre_annotations: list[Region], truth: list[Annotation], threshold: float
) -> None:
    result = correct_regions(pre_annotations, truth, threshold)
    assert Counter(r.label for r in result) == Counter(a.label for a in truth)
    candidates = [
        [j for j, a in enumerate(truth) if a.label == r.label and iou(r.box, a.box) >= threshold]
        for r in result
    ]
    assert max_matching(candidates) == len(truth)


def max_matching(candidates: list[list[int]]) -> int:
    """Size of a maximum matching of regions and true boxes (Kuhn's algorithm)."""
    owner: dict[int, int] = {}

    def assign(region: int, tried: set[int]) -> bool:
        for annotation in candidates[region]:
            if annotation not in tried:
                tried.add(annotation)
                if annotation not in owner or assign(owner[annotation], tried):
                    owner[annotation] = region
                    return True
        return False

    return sum(assign(region, set()) for region in range(len(candidates)))


@given(SHOWN, TRUTH, THRESHOLD)
def test_origins_and_outcome_counts_are_consistent(
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
            original = before[region.id]
            assert (region.box, region.label) != (original.box, original.label)
            assert region.score == original.score
    counts = outcomes(pre_annotations, result)
    assert sum(counts.values()) - counts[Outcome.ADDED] == len(pre_annotations)
    assert sum(counts.values()) - counts[Outcome.DELETED] == len(truth)


@given(SHOWN, TRUTH)
def test_correcting_a_corrected_result_changes_nothing(
    pre_annotations: list[Region], truth: list[Annotation]
) -> None:
    corrected = correct_regions(pre_annotations, truth)
    assert corrected == correct_regions(pre_annotations, truth)
    again = correct_regions(corrected, [Annotation(r.box, r.label) for r in corrected])
    assert outcomes(corrected, again)[Outcome.ACCEPTED] == len(corrected)


@pytest.mark.parametrize(
    ("region", "annotation", "outcome", "expected"),
    [
        (
            pre_annotation((0, 0, 10, 10)),
            Annotation(box(0, 0, 10, 12), "open"),
            Outcome.ACCEPTED,
            (0, 0, 10, 10),
        ),
        (
            pre_annotation((0, 0, 10, 10)),
            Annotation(box(0, 0, 10, 20), "open"),
            Outcome.MOVED,
            (0, 0, 10, 20),
        ),
        (
            pre_annotation((0, 0, 10, 10)),
            Annotation(box(0, 0, 10, 12), "spur"),
            Outcome.RELABELLED,
            (0, 0, 10, 10),
        ),
        (
            pre_annotation((0, 0, 10, 10)),
            Annotation(box(0, 0, 10, 20), "spur"),
            Outcome.RELABELLED,
            (0, 0, 10, 20),
        ),
    ],
)
def test_one_box_and_one_true_box(
    region: Region, annotation: Annotation, outcome: Outcome, expected: tuple[float, ...]
) -> None:
    (corrected,) = correct_regions([region], [annotation])
    assert corrected.id == region.id
    assert (corrected.box, corrected.label) == (box(*expected), annotation.label)
    assert outcomes([region], [corrected])[outcome] == 1


def test_box_with_small_overlap_is_deleted_and_a_new_one_added() -> None:
    region, annotation = pre_annotation((0, 0, 10, 10)), Annotation(box(9, 0, 19, 10), "open")
    assert 0 < iou(region.box, annotation.box) < EDIT_IOU
    (added,) = correct_regions([region], [annotation])
    assert (added.origin, added.box) == ("manual", annotation.box)
    counts = outcomes([region], [added])
    assert (counts[Outcome.DELETED], counts[Outcome.ADDED]) == (1, 1)


def test_box_with_the_higher_iou_is_kept() -> None:
    worse, better = (
        pre_annotation((0, 0, 10, 12), name="worse"),
        pre_annotation((0, 0, 10, 11), name="better"),
    )
    assert [r.id for r in correct_regions([worse, better], [Annotation(box(0, 0, 10, 10), "open")])] == [
        "better"
    ]


def test_acceptable_box_is_preferred_to_a_higher_iou_of_another_class() -> None:
    good, wrong = (
        pre_annotation((0, 0, 10, 12), name="good"),
        pre_annotation((0, 0, 10, 10), "spur", name="wrong"),
    )
    assert [r.id for r in correct_regions([wrong, good], [Annotation(box(0, 0, 10, 10), "open")])] == ["good"]


def test_interrupted_simulated_annotator_continues_and_submits_the_ground_truth(
    new_client: Callable[[], Studio],
    title: str,
    vocabulary: Vocabulary,
    images: Callable[[str], ImageRecord],
    make_task: Callable[..., Task],
    make_detection: Callable[..., Detection],
) -> None:
    project = new_client().ensure_project(title, vocabulary)
    records = [images(name) for name in "abcde"]
    right, wrong = make_detection((10, 10, 50, 50)), make_detection((100, 100, 150, 150), "spur")
    new_client().import_tasks(project, [make_task(p, right, wrong, rank=i) for i, p in enumerate(records)])
    annotations = (Annotation(box(11, 11, 51, 51), "open"), Annotation(box(200, 50, 260, 90), "spur"))
    truth = {p.key: LabelledImage(p, annotations) for p in records[:4]}

    def interrupt(done: int, total: int) -> None:
        assert total == 4
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SimulatedAnnotator(new_client(), truth).run(project, interrupt)
    assert SimulatedAnnotator(new_client(), truth).run(project) == 2
    assert SimulatedAnnotator(new_client(), truth).run(project) == 0
    harvests = new_client().harvest(project)
    assert sorted(h.key for h in harvests) == sorted(truth)
    expected = dict.fromkeys(Outcome, 0) | {Outcome.ACCEPTED: 1, Outcome.DELETED: 1, Outcome.ADDED: 1}
    assert all(h.outcomes == expected for h in harvests)
    assert [task.key for task in new_client().open_tasks(project)] == [records[4].key]  # without ground truth
