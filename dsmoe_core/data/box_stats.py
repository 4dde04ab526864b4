"""Appearance statistics of the content of a box: contrast to its surroundings and direction of its lines."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from math import atan2, ceil, degrees, floor, hypot

import numpy as np
from jaxtyping import Float

from dsmoe_core.schema import Box

Grey = Float[np.ndarray, "h w"]
"""Grey levels of an image, 0 to 255."""
MIN_RING_PX = 3
"""Minimum width of the ring around a box."""
MARGIN_PX = 2
"""Margin around a box for its orientation, because people draw boxes tight: the outline of an object often
lies on its box or slightly beyond."""
MIN_COHERENCE = 0.3
"""Minimum coherence of the structure tensor, (l1 - l2) / (l1 + l2), for a direction; a 2 : 1 bar has 1/3."""
MIN_GRADIENT_ENERGY = 1.0
"""Minimum mean squared gradient, in (grey levels per pixel)^2, for a direction."""


class Orientation(StrEnum):
    """Dominant direction of the lines in a box."""

    HORIZONTAL = "horizontal"
    VERTICAL = "vertical"
    OBLIQUE = "oblique"
    NONE = "no one direction"


def contrast(grey: Grey, box: Box, others: Sequence[Box] = ()) -> float | None:
    """Mean grey level inside a box minus that of the ring around it; negative if the inside is darker.

    The ring is half the box's shorter side wide, and at least MIN_RING_PX.

    Args:
        others: other annotated boxes, which are left out of the ring.

    Returns:
        -255 to 255; None if no pixel of the ring is left.
    """
    ring = max(MIN_RING_PX, round(min(box.width, box.height) / 2))
    rows, columns = _slices(grey, box, ring)
    in_ring = np.zeros(grey.shape, dtype=bool)
    in_ring[rows, columns] = True
    for excluded in (box, *others):
        in_ring[_slices(grey, excluded, 0)] = False
    if not in_ring.any():
        return None
    return float(grey[_slices(grey, box, 0)].mean() - grey[in_ring].mean())


def orientation(grey: Grey, box: Box) -> Orientation:
    """Direction of the lines in a box, from the structure tensor.

    The tensor sums the products of the gradients over the box; the eigenvector of its larger eigenvalue is
    normal to the lines. Source: Bigun and Granlund, "Optimal Orientation Detection of Linear Symmetry", 1987.
    """
    part = grey[_slices(grey, box, MARGIN_PX)]
    if min(part.shape) < 2:
        return Orientation.NONE
    dy, dx = np.gradient(part)
    xx, yy, xy = float((dx**2).sum()), float((dy**2).sum()), float((dx * dy).sum())
    if (xx + yy) / part.size < MIN_GRADIENT_ENERGY or hypot(xx - yy, 2 * xy) / (xx + yy) < MIN_COHERENCE:
        return Orientation.NONE
    angle = (degrees(atan2(2 * xy, xx - yy)) / 2 + 90) % 180
    if min(angle, 180 - angle) <= 22.5:
        return Orientation.HORIZONTAL
    return Orientation.VERTICAL if abs(angle - 90) <= 22.5 else Orientation.OBLIQUE


def _slices(grey: Grey, box: Box, margin: int) -> tuple[slice, slice]:
    """Rows and columns of the box with a margin in pixels, within the image; at least one pixel."""
    height, width = grey.shape
    left, top = (max(0, floor(v) - margin) for v in (box.x1, box.y1))
    right, bottom = (ceil(v) + margin for v in (box.x2, box.y2))
    left, top = min(left, width - 1), min(top, height - 1)
    return slice(top, max(min(bottom, height), top + 1)), slice(left, max(min(right, width), left + 1))
