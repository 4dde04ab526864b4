"""Geometric augmentations and MixUp: boxes stay on their pixels."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dsmoe_core.data.augment.geometry import flip_and_rotate, zoom_and_shift
from dsmoe_core.data.augment.mixup import mixup
from dsmoe_core.data.augment.sample import Sample
from tests.dsmoe_core.data.augment.samples import SAMPLES, bright_box, with_rectangle


@given(SAMPLES, st.integers(0, 3), st.booleans())
def test_boxes_follow_flip_and_rotation(sample: Sample, quarters: int, mirrored: bool) -> None:
    rotated = flip_and_rotate(sample, quarters=quarters, mirrored=mirrored)
    assert tuple(rotated.boxes[0]) == bright_box(rotated)
    assert len(rotated.applied) == mirrored + (quarters > 0)


@given(SAMPLES, st.floats(0.8, 1.25), st.floats(-0.1, 0.1), st.floats(-0.1, 0.1))
def test_boxes_follow_zoom_and_shift(sample: Sample, scale: float, dx: float, dy: float) -> None:
    moved = zoom_and_shift(sample, scale=scale, dx=dx, dy=dy)
    assert np.abs(moved.boxes[0] - np.array(bright_box(moved))).max() <= 1.5


def test_box_outside_the_image_is_dropped() -> None:
    moved = zoom_and_shift(with_rectangle(0, 0, 6, 6), scale=1.25, dx=-0.1, dy=-0.1)
    assert moved.boxes.shape == (0, 4)
    assert moved.labels.shape == (0,)


def test_mixup_keeps_the_boxes_of_both_images() -> None:
    mixed = mixup(with_rectangle(2, 2, 8, 8), with_rectangle(40, 40, 8, 8), share=0.5)
    assert mixed.boxes.shape == (2, 4)
    assert mixed.pixels[5, 5, 0] == 127
