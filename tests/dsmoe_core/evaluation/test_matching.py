"""Matching of detections with ground-truth boxes."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenes import random_scene, scene_from_numbers, scene_numbers

from dsmoe_core.evaluation.coco_metrics import coco_tables
from dsmoe_core.evaluation.matching import (
    IOU_THRESHOLD,
    UNMATCHED,
    ImageMatches,
    greedy_match,
    match_images,
    pairwise_iou,
)
from dsmoe_core.schema import Box, LabelledImage, Prediction

sides = st.tuples(st.integers(0, 8), st.integers(0, 8), st.integers(1, 6), st.integers(1, 6))
boxes = sides.map(lambda s: Box(float(s[0]), float(s[1]), float(s[0] + s[2]), float(s[1] + s[3])))


def pixels(box: Box) -> set[tuple[int, int]]:
    return {(x, y) for x in range(int(box.x1), int(box.x2)) for y in range(int(box.y1), int(box.y2))}


@given(st.lists(boxes, max_size=4), st.lists(boxes, max_size=4))
def test_iou_equals_that_of_counted_pixels(rows: list[Box], columns: list[Box]) -> None:
    table = pairwise_iou(rows, columns)
    assert table.shape == (len(rows), len(columns))
    for i, a in enumerate(rows):
        for j, b in enumerate(columns):
            intersection, union = pixels(a) & pixels(b), pixels(a) | pixels(b)
            assert table[i, j] == pytest.approx(len(intersection) / len(union))


tables = st.tuples(st.integers(0, 6), st.integers(0, 5), st.integers(0, 999)).map(
    lambda s: np.random.default_rng(s[2]).integers(0, 6, s[:2]) / 5
)


@given(tables)
def test_greedy_match_takes_the_best_free_column(iou: np.ndarray) -> None:  # type: ignore[type-arg]
    free, expected = set(range(iou.shape[1])), []
    for row in iou:
        best = max(free, key=lambda column: (row[column], -column), default=UNMATCHED)
        is_match = best != UNMATCHED and row[best] >= IOU_THRESHOLD
        expected.append(best if is_match else UNMATCHED)
        free -= {best} if is_match else set()
    assert greedy_match(iou).tolist() == expected


@given(scene_numbers)
def test_matches_are_one_to_one_within_the_class_and_maximal(
    crowd: list[int],
) -> None:
    for image in match_images(*scene_from_numbers(crowd)):
        matched = image.truth_index[image.correct].tolist()
        assert len(set(matched)) == len(matched)
        for i, j in enumerate(image.truth_index):
            if j != UNMATCHED:
                assert image.detections[i].label == image.truth[j].label
                assert image.iou[i, j] >= IOU_THRESHOLD
            else:
                candidates = (image.iou[i] >= IOU_THRESHOLD) & image.same_class[i]
                assert set(np.flatnonzero(candidates)) <= set(matched)
        assert (image.truth_scores > 0).sum() == len(matched)


def outcome(image: ImageMatches) -> list[tuple[object, ...]]:
    """The matched pairs, independent of the order; equal boxes and detections are not distinguished."""
    return sorted(
        (f.score, f.box.corners, f.label, image.truth[j].box.corners if j != UNMATCHED else ())
        for f, j in zip(image.detections, image.truth_index, strict=True)
    )


@given(scene_numbers, st.randoms(use_true_random=False))
def test_order_of_the_inputs_does_not_matter(crowd: list[int], rng: random.Random) -> None:
    detections, truth = scene_from_numbers(crowd)
    mixed_detections = {
        key: Prediction(key, tuple(rng.sample(f.detections, len(f.detections))), f.routing, 0.0, "")
        for key, f in detections.items()
    }
    mixed_truth = [
        LabelledImage(p.image, tuple(rng.sample(p.annotations, len(p.annotations)))) for p in truth
    ]
    first, second = match_images(detections, truth), match_images(mixed_detections, mixed_truth)
    assert [outcome(p) for p in first] == [outcome(p) for p in second]


@pytest.mark.parametrize("seed", range(5))
def test_matches_equal_those_of_pycocotools_at_iou_0_5(seed: int) -> None:
    detections, truth = random_scene(seed)
    classes = ("spur", "short", "hole")
    coco = coco_tables(detections, truth, classes)
    ours = match_images(detections, truth)
    for name, theirs in zip(classes, coco.matches, strict=True):
        rows = [
            (-f.score, bool(right))
            for p in ours
            for f, right in zip(p.detections, p.correct, strict=True)
            if f.label == name
        ]
        assert [right for _, right in sorted(rows)] == theirs.correct[0].tolist()


def test_images_without_detections_are_kept() -> None:
    detections, truth = random_scene(0, images=3)
    del detections["p1"]
    detections["elsewhere"] = detections["p0"]
    matched = match_images(detections, truth)
    assert [p.image.key for p in matched] == ["p0", "p1", "p2"]
    assert matched[1].iou.shape == (0, len(truth[1].annotations))
