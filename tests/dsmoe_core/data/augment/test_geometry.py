"""Boxes move with the pixels that they enclose."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dsmoe_core.data.augment.geometry import flip_and_rotate, zoom_and_shift
from dsmoe_core.data.augment.mixup import mixup
from dsmoe_core.data.augment.sample import Sample
from tests.dsmoe_core.data.augment.samples import SQUARES, bright, with_square


@given(SQUARES, st.integers(0, 3), st.booleans())
def test_turning_and_mirroring(sample: Sample, quarters: int, mirrored: bool) -> None:
    turned = flip_and_rotate(sample, quarters=quarters, mirrored=mirrored)
    assert tuple(turned.boxes[0]) == bright(turned)
    assert len(turned.applied) == mirrored + (quarters > 0)


@given(SQUARES, st.floats(0.8, 1.25), st.floats(-0.1, 0.1), st.floats(-0.1, 0.1))
def test_zooming_and_shifting(sample: Sample, scale: float, dx: float, dy: float) -> None:
    moved = zoom_and_shift(sample, scale=scale, dx=dx, dy=dy)
    assert np.abs(moved.boxes[0] - np.array(bright(moved))).max() <= 1.5


def test_a_box_that_left_the_image_is_dropped() -> None:
    gone = zoom_and_shift(with_square(0, 0, 6, 6), scale=1.25, dx=-0.1, dy=-0.1)
    assert gone.boxes.shape == (0, 4)
    assert gone.labels.shape == (0,)


def test_mixing_keeps_both() -> None:
    both = mixup(with_square(2, 2, 8, 8), with_square(40, 40, 8, 8), share=0.5)
    assert both.boxes.shape == (2, 4)
    assert both.pixels[5, 5, 0] == 127
