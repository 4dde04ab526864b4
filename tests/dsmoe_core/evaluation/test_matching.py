"""Which finding is which true box."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenes import crowded, crowds, random_scene

from dsmoe_core.evaluation.coco_metrics import coco_tables
from dsmoe_core.evaluation.matching import IOU, NONE, Matched, greedy, match_pictures, overlaps
from dsmoe_core.schema import Box, LabelledPicture, PictureFindings

sides = st.tuples(st.integers(0, 8), st.integers(0, 8), st.integers(1, 6), st.integers(1, 6))
boxes = sides.map(lambda s: Box(float(s[0]), float(s[1]), float(s[0] + s[2]), float(s[1] + s[3])))


def pixels(box: Box) -> set[tuple[int, int]]:
    return {(x, y) for x in range(int(box.x1), int(box.x2)) for y in range(int(box.y1), int(box.y2))}


@given(st.lists(boxes, max_size=4), st.lists(boxes, max_size=4))
def test_overlap_is_that_of_counted_pixels(rows: list[Box], columns: list[Box]) -> None:
    table = overlaps(rows, columns)
    assert table.shape == (len(rows), len(columns))
    for i, a in enumerate(rows):
        for j, b in enumerate(columns):
            shared, either = pixels(a) & pixels(b), pixels(a) | pixels(b)
            assert table[i, j] == pytest.approx(len(shared) / len(either))


tables = st.tuples(st.integers(0, 6), st.integers(0, 5), st.integers(0, 999)).map(
    lambda s: np.random.default_rng(s[2]).integers(0, 6, s[:2]) / 5
)


@given(tables)
def test_greedy_gives_each_row_the_best_free_column_in_turn(overlap: np.ndarray) -> None:  # type: ignore[type-arg]
    free, expected = set(range(overlap.shape[1])), []
    for row in overlap:
        best = max(free, key=lambda column: (row[column], -column), default=NONE)
        take = best != NONE and row[best] >= IOU
        expected.append(best if take else NONE)
        free -= {best} if take else set()
    assert greedy(overlap).tolist() == expected


@given(crowds)
def test_every_true_box_is_found_at_most_once_by_its_own_class_and_none_is_left_that_could_be(
    crowd: list[int],
) -> None:
    for picture in match_pictures(*crowded(crowd)):
        taken = picture.truth_of[picture.right].tolist()
        assert len(set(taken)) == len(taken)
        for i, j in enumerate(picture.truth_of):
            if j != NONE:
                assert picture.findings[i].label == picture.truth[j].label
                assert picture.overlap[i, j] >= IOU
            else:
                could = (picture.overlap[i] >= IOU) & picture.same_class[i]
                assert set(np.flatnonzero(could)) <= set(taken)
        assert (picture.best_score > 0).sum() == len(taken)


def outcome(picture: Matched) -> list[tuple[object, ...]]:
    """What was matched with what, without regard to places in lists; equal boxes and findings are one."""
    return sorted(
        (f.score, f.box.corners, f.label, picture.truth[j].box.corners if j != NONE else ())
        for f, j in zip(picture.findings, picture.truth_of, strict=True)
    )


@given(crowds, st.randoms(use_true_random=False))
def test_the_order_of_findings_and_true_boxes_does_not_matter(crowd: list[int], rng: random.Random) -> None:
    findings, truth = crowded(crowd)
    mixed_findings = {
        key: PictureFindings(key, tuple(rng.sample(f.findings, len(f.findings))), f.routing, 0.0, "")
        for key, f in findings.items()
    }
    mixed_truth = [
        LabelledPicture(p.picture, tuple(rng.sample(p.annotations, len(p.annotations)))) for p in truth
    ]
    one, other = match_pictures(findings, truth), match_pictures(mixed_findings, mixed_truth)
    assert [outcome(p) for p in one] == [outcome(p) for p in other]


@pytest.mark.parametrize("seed", range(5))
def test_at_a_half_it_finds_what_pycocotools_finds(seed: int) -> None:
    findings, truth = random_scene(seed)
    classes = ("spur", "short", "hole")
    coco = coco_tables(findings, truth, classes)
    ours = match_pictures(findings, truth)
    for name, theirs in zip(classes, coco.matches, strict=True):
        rows = [
            (-f.score, bool(right))
            for p in ours
            for f, right in zip(p.findings, p.right, strict=True)
            if f.label == name
        ]
        assert [right for _, right in sorted(rows)] == theirs.right[0].tolist()


def test_a_picture_without_findings_and_one_without_boxes_are_there_too() -> None:
    findings, truth = random_scene(0, pictures=3)
    del findings["p1"]
    findings["elsewhere"] = findings["p0"]
    matched = match_pictures(findings, truth)
    assert [p.picture.key for p in matched] == ["p0", "p1", "p2"]
    assert matched[1].overlap.shape == (0, len(truth[1].annotations))
