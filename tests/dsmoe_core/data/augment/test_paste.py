"""Copy-paste: pasted defects are at their boxes, not on padding, and hide no other defect."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dsmoe_core.data.augment.paste import MAX_COVERED, paste_defects
from dsmoe_core.data.augment.sample import Sample
from tests.dsmoe_core.data.augment.samples import SIDE, with_rectangle

FULL_AREA = (0, 0, SIDE, SIDE)
Corners = tuple[int, int, int, int]


@st.composite
def rectangles(draw: st.DrawFn, max_count: int) -> list[Corners]:
    """Boxes with integer corners anywhere in the square."""
    boxes = []
    for _ in range(draw(st.integers(0, max_count))):
        x, y = draw(st.integers(0, SIDE - 4)), draw(st.integers(0, SIDE - 4))
        w, h = draw(st.integers(3, min(24, SIDE - x))), draw(st.integers(3, min(24, SIDE - y)))
        boxes.append((x, y, x + w, y + h))
    return boxes


def filled(boxes: list[Corners], first_value: int, background: int) -> Sample:
    """An image in which each box is filled with its own grey level, the last on top."""
    pixels = np.full((SIDE, SIDE, 3), background, np.uint8)
    for i, (x1, y1, x2, y2) in enumerate(boxes):
        pixels[y1:y2, x1:x2] = first_value + i
    labels = np.arange(len(boxes), dtype=np.int64)
    return Sample(pixels, np.array(boxes, np.float32).reshape(-1, 4), labels)


@given(rectangles(4), rectangles(4), st.integers(0, 999), st.integers(0, 20))
def test_pasted_boxes_are_on_their_pixels_and_off_the_padding(
    target_boxes: list[Corners], source_boxes: list[Corners], seed: int, padding: int
) -> None:
    area = (0, padding, SIDE, SIDE - padding)
    target, source = filled(target_boxes, 50, 0), filled(source_boxes, 200, 255)
    pasted = paste_defects(target, area, source, FULL_AREA, max_pasted=3, rng=np.random.default_rng(seed))
    assert len(pasted.boxes) - len(target_boxes) <= 3
    np.testing.assert_array_equal(pasted.boxes[: len(target_boxes)], target.boxes)
    np.testing.assert_array_equal(pasted.pixels[:padding], target.pixels[:padding])
    for box, label in zip(pasted.boxes[len(target_boxes) :], pasted.labels[len(target_boxes) :], strict=True):
        x1, y1, x2, y2 = box.astype(int)
        assert padding <= y1
        assert y2 <= SIDE - padding
        inside = pasted.pixels[y1:y2, x1:x2, 0] == 200 + label
        assert inside.mean() >= 1 - 3 * MAX_COVERED  # the rest is a neighbour within the limit
        assert (x2 - x1, y2 - y1) == (
            source_boxes[label][2] - source_boxes[label][0],
            source_boxes[label][3] - source_boxes[label][1],
        )


@given(rectangles(3), st.integers(0, 999))
def test_no_box_is_covered_beyond_the_limit(target_boxes: list[Corners], seed: int) -> None:
    target, source = filled(target_boxes, 50, 0), filled([(20, 20, 32, 32)], 200, 255)
    pasted = paste_defects(
        target, FULL_AREA, source, FULL_AREA, max_pasted=1, rng=np.random.default_rng(seed)
    )
    changed = (pasted.pixels != target.pixels).any(-1)
    for x1, y1, x2, y2 in target_boxes:
        assert changed[y1:y2, x1:x2].mean() <= MAX_COVERED + 1e-9


def test_border_of_a_pasted_defect_is_soft() -> None:
    source = filled([(20, 20, 40, 40)], 200, 200)
    pasted = paste_defects(
        filled([], 0, 0), FULL_AREA, source, FULL_AREA, max_pasted=1, rng=np.random.default_rng(1)
    )
    assert pasted.applied == ("1 pasted",)
    x1, y1, _, y2 = pasted.boxes[0].astype(int)
    left = pasted.pixels[(y1 + y2) // 2, x1 - 4 : x1 + 1, 0].astype(int)
    assert left.tolist() == sorted(left.tolist())
    assert left[0] == 0
    assert left[-1] == 200
    assert len(set(left.tolist())) == 5


def test_defect_that_overlaps_another_is_not_pasted() -> None:
    overlapping = filled([(10, 10, 30, 30), (20, 20, 40, 40)], 200, 255)
    target = filled([], 0, 0)
    assert (
        paste_defects(target, FULL_AREA, overlapping, FULL_AREA, max_pasted=3, rng=np.random.default_rng(0))
        is target
    )


def test_nothing_is_pasted_without_a_free_place() -> None:
    full = with_rectangle(0, 0, SIDE, SIDE)
    source = filled([(20, 20, 32, 32)], 200, 255)
    assert (
        paste_defects(full, FULL_AREA, source, FULL_AREA, max_pasted=1, rng=np.random.default_rng(0)) is full
    )
