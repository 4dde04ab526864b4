"""How the inside of one box looks: brighter or darker than what is around it, and which way its lines run."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from math import atan2, ceil, degrees, floor, hypot

import numpy as np
from jaxtyping import Float

from dsmoe_core.schema import Box

Grey = Float[np.ndarray, "h w"]
"""Brightness, 0 to 255."""
RING_PX = 3
"""Width that the ring around a box has at least."""
EDGE_PX = 2
"""People draw boxes tight: the outline of what is inside lies on the box, and a little beyond."""
COHERENT = 0.3
"""By how much of the whole one direction must outweigh its normal; a bar of 2 : 1 has a third."""
FLAT = 1.0
"""Mean square of the slope, in grey levels a pixel, below which there is no line to speak of."""


class Orientation(StrEnum):
    """Which way the lines in a box run."""

    HORIZONTAL = "horizontal"
    VERTICAL = "vertical"
    OBLIQUE = "oblique"
    NONE = "no one direction"


def contrast(grey: Grey, box: Box, others: Sequence[Box] = ()) -> float | None:
    """Mean grey inside the box less that of a ring around it: negative where the inside is darker.

    The ring is half the box's shorter side wide, and at least RING_PX.

    Args:
        others: boxes that do not belong to the ring, for there is something in them too.

    Returns:
        -255 to 255; None where no ring is left, as the box fills its image.
    """
    ring = max(RING_PX, round(min(box.width, box.height) / 2))
    rows, columns = _slices(grey, box, ring)
    around = np.zeros(grey.shape, dtype=bool)
    around[rows, columns] = True
    for one in (box, *others):
        around[_slices(grey, one, 0)] = False
    if not around.any():
        return None
    return float(grey[_slices(grey, box, 0)].mean() - grey[around].mean())


def orientation(grey: Grey, box: Box) -> Orientation:
    """The direction of the lines in a box, by its structure tensor.

    The tensor sums the products of the slopes over the box; the eigenvector of its greater eigenvalue crosses
    the lines. Source: Bigun and Granlund, "Optimal Orientation Detection of Linear Symmetry", 1987.
    """
    part = grey[_slices(grey, box, EDGE_PX)]
    if min(part.shape) < 2:
        return Orientation.NONE
    down, right = np.gradient(part)
    xx, yy, xy = float((right**2).sum()), float((down**2).sum()), float((right * down).sum())
    if (xx + yy) / part.size < FLAT or hypot(xx - yy, 2 * xy) / (xx + yy) < COHERENT:
        return Orientation.NONE
    along = (degrees(atan2(2 * xy, xx - yy)) / 2 + 90) % 180
    if min(along, 180 - along) <= 22.5:
        return Orientation.HORIZONTAL
    return Orientation.VERTICAL if abs(along - 90) <= 22.5 else Orientation.OBLIQUE


def _slices(grey: Grey, box: Box, margin: int) -> tuple[slice, slice]:
    """Rows and columns of the box's pixels, and so many around it; at least one pixel."""
    height, width = grey.shape
    left, top = (max(0, floor(v) - margin) for v in (box.x1, box.y1))
    right, bottom = (ceil(v) + margin for v in (box.x2, box.y2))
    left, top = min(left, width - 1), min(top, height - 1)
    return slice(top, max(min(bottom, height), top + 1)), slice(left, max(min(right, width), left + 1))
