"""Mold points: eighteen types that stay distinct under mirroring and rotation."""

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
    rendered = render_mark(kind, (PX / 2, PX / 2), RADIUS, angle, GRID, np.random.default_rng(seed), px=PX)
    assert rendered is not None
    return rendered


def components(height: FloatImage) -> int:
    image = Image.fromarray(((height > 0) * 255).astype(np.uint8)).copy()
    count = 0
    while (remaining := np.argwhere(np.asarray(image) == 255)).size:
        ImageDraw.floodfill(image, (int(remaining[0][1]), int(remaining[0][0])), 128)
        count += 1
    return count


def test_there_are_eighteen_types() -> None:
    assert len(CLASSES) == len(set(CLASSES)) == 18
    assert tuple(kind.name for kind in TYPES) == CLASSES


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(TYPES), st.floats(-pi, pi), st.integers(0, 99))
def test_mark_has_its_number_of_points_within_its_box(kind: MoldType, angle: float, seed: int) -> None:
    rendered = mark(kind, angle, seed)
    assert rendered.annotation.label == kind.name
    assert components(rendered.height) == kind.points
    box = rendered.annotation.box
    rows, columns = np.nonzero(rendered.height)
    assert box.x1 < columns.min() / FINE < (columns.max() + 1) / FINE < box.x2
    assert box.y1 < rows.min() / FINE < (rows.max() + 1) / FINE < box.y2


@pytest.mark.parametrize("kind", TYPES, ids=CLASSES)
def test_mirrored_mark_has_the_same_type(kind: MoldType) -> None:
    """A mark at the top of the ring is mirrored onto itself, as by a flip in training."""
    height = mark(kind, -pi / 2).height
    assert np.abs(height - height[:, ::-1]).mean() < 0.1 * height.mean()


def test_spacings_differ_by_more_than_the_random_variation_of_size() -> None:
    for form in ("round", "radial", "along"):
        lengths = sorted((t.half_length, t.name) for t in TYPES if t.form == form and t.points == 3)
        assert lengths[0][1].endswith("close")
        assert lengths[1][0] > 1.25 * lengths[0][0]


def test_mark_that_leaves_the_image_is_not_rendered() -> None:
    rng = np.random.default_rng(0)
    assert render_mark(TYPES[0], (PX / 2, PX / 2), PX / 2, 0.0, GRID, rng, px=PX) is None
