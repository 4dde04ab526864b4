"""A pasted defect lies where its box says, on image and not on padding, and hides no other."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dsmoe_core.data.augment.paste import MAX_COVERED, paste_defects
from dsmoe_core.data.augment.sample import Sample
from tests.dsmoe_core.data.augment.samples import SIDE, with_square

WHOLE = (0, 0, SIDE, SIDE)
Corners = tuple[int, int, int, int]


@st.composite
def rectangles(draw: st.DrawFn, most: int) -> list[Corners]:
    """Whole-pixel boxes anywhere in the square."""
    found = []
    for _ in range(draw(st.integers(0, most))):
        x, y = draw(st.integers(0, SIDE - 4)), draw(st.integers(0, SIDE - 4))
        w, h = draw(st.integers(3, min(24, SIDE - x))), draw(st.integers(3, min(24, SIDE - y)))
        found.append((x, y, x + w, y + h))
    return found


def marked(boxes: list[Corners], first_value: int, ground: int) -> Sample:
    """Each box filled with a grey of its own, the last on top."""
    pixels = np.full((SIDE, SIDE, 3), ground, np.uint8)
    for i, (x1, y1, x2, y2) in enumerate(boxes):
        pixels[y1:y2, x1:x2] = first_value + i
    labels = np.arange(len(boxes), dtype=np.int64)
    return Sample(pixels, np.array(boxes, np.float32).reshape(-1, 4), labels)


@given(rectangles(4), rectangles(4), st.integers(0, 999), st.integers(0, 20))
def test_boxes_stay_on_their_pixels(
    here: list[Corners], there: list[Corners], seed: int, padding: int
) -> None:
    area = (0, padding, SIDE, SIDE - padding)
    target, source = marked(here, 50, 0), marked(there, 200, 255)
    pasted = paste_defects(target, area, source, WHOLE, max_pasted=3, rng=np.random.default_rng(seed))
    assert len(pasted.boxes) - len(here) <= 3
    np.testing.assert_array_equal(pasted.boxes[: len(here)], target.boxes)
    np.testing.assert_array_equal(pasted.pixels[:padding], target.pixels[:padding])
    for box, label in zip(pasted.boxes[len(here) :], pasted.labels[len(here) :], strict=True):
        x1, y1, x2, y2 = box.astype(int)
        assert padding <= y1
        assert y2 <= SIDE - padding
        inside = pasted.pixels[y1:y2, x1:x2, 0] == 200 + label
        assert inside.mean() >= 1 - 3 * MAX_COVERED  # the rest is a neighbour within the limit
        assert (x2 - x1, y2 - y1) == (there[label][2] - there[label][0], there[label][3] - there[label][1])


@given(rectangles(3), st.integers(0, 999))
def test_no_box_is_covered_beyond_the_limit(here: list[Corners], seed: int) -> None:
    target, source = marked(here, 50, 0), marked([(20, 20, 32, 32)], 200, 255)
    pasted = paste_defects(target, WHOLE, source, WHOLE, max_pasted=1, rng=np.random.default_rng(seed))
    changed = (pasted.pixels != target.pixels).any(-1)
    for x1, y1, x2, y2 in here:
        assert changed[y1:y2, x1:x2].mean() <= MAX_COVERED + 1e-9


def test_the_border_is_soft() -> None:
    source = marked([(20, 20, 40, 40)], 200, 200)
    pasted = paste_defects(marked([], 0, 0), WHOLE, source, WHOLE, max_pasted=1, rng=np.random.default_rng(1))
    assert pasted.applied == ("1 pasted",)
    x1, y1, _, y2 = pasted.boxes[0].astype(int)
    left = pasted.pixels[(y1 + y2) // 2, x1 - 4 : x1 + 1, 0].astype(int)
    assert left.tolist() == sorted(left.tolist())
    assert left[0] == 0
    assert left[-1] == 200
    assert len(set(left.tolist())) == 5


def test_a_defect_that_another_touches_stays_where_it_is() -> None:
    touching = marked([(10, 10, 30, 30), (20, 20, 40, 40)], 200, 255)
    target = marked([], 0, 0)
    assert paste_defects(target, WHOLE, touching, WHOLE, max_pasted=3, rng=np.random.default_rng(0)) is target


def test_where_there_is_no_free_place_nothing_is_pasted() -> None:
    full = with_square(0, 0, SIDE, SIDE)
    source = marked([(20, 20, 32, 32)], 200, 255)
    assert paste_defects(full, WHOLE, source, WHOLE, max_pasted=1, rng=np.random.default_rng(0)) is full
