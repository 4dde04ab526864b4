"""Images with one white rectangle, and where it is after an augmentation."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from dsmoe_core.data.augment.sample import Sample

SIDE = 64


def with_rectangle(x: int, y: int, w: int, h: int) -> Sample:
    """A white rectangle on black, with its box."""
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[y : y + h, x : x + w] = 255
    return Sample(pixels, np.array([[x, y, x + w, y + h]], np.float32), np.array([1]))


def bright_box(sample: Sample) -> tuple[float, ...]:
    """Bounding box of the bright pixels."""
    ys, xs = np.nonzero(sample.pixels[..., 0] > 127)
    return (float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1))


SAMPLES = st.builds(
    with_rectangle, st.integers(16, 30), st.integers(16, 30), st.integers(6, 16), st.integers(6, 16)
)
