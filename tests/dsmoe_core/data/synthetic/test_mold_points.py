"""Mold points: eighteen types that differ by what their names say, mirrored or turned."""

from __future__ import annotations

from math import pi

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from dsmoe_core.data.synthetic.mold_points import CLASSES, TYPES, MoldMark, MoldType, render_mark
from dsmoe_core.data.synthetic.rendering import FloatImage, pixel_grid

PX, FINE = 200, 3
GRID = pixel_grid(PX, FINE)
RADIUS = 60.0


def mark(kind: MoldType, angle: float, seed: int = 0) -> MoldMark:
    made = render_mark(kind, (PX / 2, PX / 2), RADIUS, angle, GRID, np.random.default_rng(seed), px=PX)
    assert made is not None
    return made


def pieces(height: FloatImage) -> int:
    image = Image.fromarray(((height > 0) * 255).astype(np.uint8)).copy()
    count = 0
    while (left := np.argwhere(np.asarray(image) == 255)).size:
        ImageDraw.floodfill(image, (int(left[0][1]), int(left[0][0])), 128)
        count += 1
    return count


def test_there_are_eighteen() -> None:
    assert len(CLASSES) == len(set(CLASSES)) == 18
    assert tuple(kind.name for kind in TYPES) == CLASSES


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(TYPES), st.floats(-pi, pi), st.integers(0, 99))
def test_a_mark_has_its_number_of_points_within_its_box(kind: MoldType, angle: float, seed: int) -> None:
    made = mark(kind, angle, seed)
    assert made.annotation.label == kind.name
    assert pieces(made.height) == kind.points
    box = made.annotation.box
    rows, columns = np.nonzero(made.height)
    assert box.x1 < columns.min() / FINE < (columns.max() + 1) / FINE < box.x2
    assert box.y1 < rows.min() / FINE < (rows.max() + 1) / FINE < box.y2


@pytest.mark.parametrize("kind", TYPES, ids=CLASSES)
def test_a_mark_in_the_mirror_is_of_the_same_type(kind: MoldType) -> None:
    """At the top of the ring, left and right change places: what a flip in training makes of it."""
    height = mark(kind, -pi / 2).height
    assert np.abs(height - height[:, ::-1]).mean() < 0.1 * height.mean()


def test_types_differ_in_length_or_form_by_more_than_their_size_varies() -> None:
    for form in ("round", "radial", "along"):
        lengths = sorted((t.half_length, t.name) for t in TYPES if t.form == form and t.points == 3)
        assert lengths[0][1].endswith("close")
        assert lengths[1][0] > 1.25 * lengths[0][0]


def test_a_mark_that_leaves_the_image_is_not_made() -> None:
    rng = np.random.default_rng(0)
    assert render_mark(TYPES[0], (PX / 2, PX / 2), PX / 2, 0.0, GRID, rng, px=PX) is None
