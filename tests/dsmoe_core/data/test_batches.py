"""Augmentation keeps boxes on what they enclose."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dsmoe_core.config import TrainingConfig
from dsmoe_core.data.batches import Sample, TrainingSet, mix, shift, turn
from dsmoe_core.data.letterbox import LetterBox, read_square
from dsmoe_core.schema import LabelledPicture, Vocabulary

SIDE = 64


def with_square(x: int, y: int, w: int, h: int) -> Sample:
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[y : y + h, x : x + w] = 255
    return Sample(pixels, np.array([[x, y, x + w, y + h]], np.float32), np.array([1]))


def bright(sample: Sample) -> tuple[float, ...]:
    """Corners of what is bright."""
    ys, xs = np.nonzero(sample.pixels[..., 0] > 127)
    return (float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1))


SQUARES = st.builds(
    with_square, st.integers(16, 30), st.integers(16, 30), st.integers(6, 16), st.integers(6, 16)
)


@given(SQUARES, st.integers(0, 3), st.booleans())
def test_turning_and_mirroring(sample: Sample, quarters: int, mirrored: bool) -> None:
    turned = turn(sample, quarters=quarters, mirrored=mirrored)
    assert tuple(turned.boxes[0]) == bright(turned)


@given(SQUARES, st.floats(0.8, 1.25), st.floats(-0.1, 0.1), st.floats(-0.1, 0.1))
def test_zooming_and_shifting(sample: Sample, scale: float, dx: float, dy: float) -> None:
    moved = shift(sample, scale=scale, dx=dx, dy=dy)
    assert np.abs(moved.boxes[0] - np.array(bright(moved))).max() <= 1.5


def test_a_box_that_left_the_picture_is_dropped() -> None:
    gone = shift(with_square(0, 0, 6, 6), scale=1.25, dx=-0.1, dy=-0.1)
    assert gone.boxes.shape == (0, 4)
    assert gone.labels.shape == (0,)


def test_mixing_keeps_both() -> None:
    both = mix(with_square(2, 2, 8, 8), with_square(40, 40, 8, 8), share=0.5)
    assert both.boxes.shape == (2, 4)
    assert both.pixels[5, 5, 0] == 127


@settings(max_examples=50)
@given(st.integers(20, 3000), st.integers(20, 3000), st.floats(0, 0.9), st.floats(0, 0.9))
def test_letter_boxing_there_and_back(width: int, height: int, x: float, y: float) -> None:
    box = np.array([[x * width, y * height, (x + 0.1) * width, (y + 0.1) * height]], np.float32)
    letterbox = LetterBox.of(width, height, 320)
    inside = letterbox.into(box)
    assert inside.min() >= 0
    assert inside.max() <= 321
    assert np.abs(letterbox.back(inside) - box).max() < 1e-3 * max(width, height)


def test_every_picture_comes_once_an_epoch_and_a_step_repeats_itself(
    pictures: list[LabelledPicture], vocabulary: Vocabulary
) -> None:
    training = TrainingConfig(batch=3, seed=7)
    data = TrainingSet(pictures, vocabulary, SIDE, training)
    assert sorted(data._index(i) for i in range(6)) == list(range(6))
    assert sorted(data._index(i) for i in range(6, 12)) == list(range(6))
    first, again = data.batch(4), TrainingSet(pictures, vocabulary, SIDE, training).batch(4)
    np.testing.assert_array_equal(first.pixels, again.pixels)
    for a, b in zip(first.boxes, again.boxes, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_square_shows_the_whole_picture(pictures: list[LabelledPicture]) -> None:
    square = read_square(pictures[0].picture, SIDE)
    assert square.shape == (SIDE, SIDE, 3)
    assert (square[0] == 114).all()  # 100 x 80 is padded above and below
    assert square[SIDE // 2].std() > 0
