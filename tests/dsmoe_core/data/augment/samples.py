"""Squares with one rectangle that stands out, and where it stands afterwards."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from dsmoe_core.data.augment.sample import Sample

SIDE = 64


def with_square(x: int, y: int, w: int, h: int) -> Sample:
    """A white rectangle on black, with its box."""
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
