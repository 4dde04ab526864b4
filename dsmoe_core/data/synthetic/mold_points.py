"""The eighteen types of mold points on bottles' bottoms: rows of raised points that identify the mold.

A type is a number of points (2, 3 or 4), their form (``round``; ``radial``: a bar towards the centre;
``along``: a bar along the ring) and their spacing (``close`` or ``wide``): 3 * 3 * 2 = 18. Marks are
symmetric and keep their type under rotation, so that training augmentations never turn one type into another.
Lengths are fractions of the image's side.
"""

from __future__ import annotations

from itertools import product
from typing import Literal, NamedTuple

import numpy as np

from dsmoe_core.data.synthetic.rendering import FloatImage, mask_box
from dsmoe_core.schema import Annotation

Form = Literal["round", "radial", "along"]
Spacing = Literal["close", "wide"]
COUNTS = (2, 3, 4)
FORMS: tuple[Form, ...] = ("round", "radial", "along")
SPACINGS: tuple[Spacing, ...] = ("close", "wide")
CLASSES = tuple(f"mold_{n}_{form}_{spacing}" for n, form, spacing in product(COUNTS, FORMS, SPACINGS))

_POINT_RADIUS = 0.0095
_BAR_EXTENSION = 0.0085  # of a bar beyond a round point, at either end
_GAPS = {"close": 0.01, "wide": 0.03}  # between two points
_MARGIN = 0.008


class MoldType(NamedTuple):
    """One type of mold points."""

    points: int
    form: Form
    spacing: Spacing

    @property
    def name(self) -> str:
        return f"mold_{self.points}_{self.form}_{self.spacing}"

    @property
    def pitch(self) -> float:
        """Distance of the centres of neighbouring points."""
        return 2 * _POINT_RADIUS + (2 * _BAR_EXTENSION if self.form == "along" else 0.0) + _GAPS[self.spacing]

    @property
    def half_length(self) -> float:
        """Half of the length of the mark along the ring."""
        end = _POINT_RADIUS + (_BAR_EXTENSION if self.form == "along" else 0.0)
        return (self.points - 1) / 2 * self.pitch + end


TYPES = tuple(MoldType(*parts) for parts in product(COUNTS, FORMS, SPACINGS))


class MoldMark(NamedTuple):
    """One rendered mark: its height map, 0 to 1, at the grid's positions, and its annotation."""

    height: FloatImage
    annotation: Annotation


def render_mark(
    kind: MoldType,
    centre: tuple[float, float],
    radius: float,
    angle: float,
    grid: tuple[FloatImage, FloatImage],
    rng: np.random.Generator,
    *,
    px: int,
) -> MoldMark | None:
    """Render a mark; None if it leaves the image.

    Args:
        centre, radius: of the ring, in pixels.
        angle: of the mark's centre on the ring, in radians.
        grid: x and y of the positions to evaluate, in pixels of the image.
        rng: of the small variations of size and position.
        px: side of the image.
    """
    size = float(rng.uniform(0.93, 1.07)) * px
    height = np.zeros_like(grid[0])
    for i in range(kind.points):
        offset = (i - (kind.points - 1) / 2) * kind.pitch * size + float(rng.normal(0, 0.0006)) * px
        height = np.maximum(
            height, render_point(kind.form, centre, radius, angle + offset / radius, grid, size)
        )
    box = mask_box(height > 0.08, _MARGIN * px, fine=round(len(height) / px))
    if box is None or min(box.x1, box.y1) <= 0 or max(box.x2, box.y2) >= px:
        return None
    return MoldMark(height, Annotation(box, kind.name))


def render_point(
    form: Form,
    centre: tuple[float, float],
    radius: float,
    angle: float,
    grid: tuple[FloatImage, FloatImage],
    size: float,
) -> FloatImage:
    """Height map of one point, 0 to 1: a dome, or a bar with round ends; ``size`` is the image's side."""
    radial_x, radial_y = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    x, y = grid[0] - np.float32(centre[0]), grid[1] - np.float32(centre[1])
    radial, tangential = x * radial_x + y * radial_y - np.float32(radius), y * radial_x - x * radial_y
    extension = np.float32(0.0 if form == "round" else _BAR_EXTENSION * size)
    half_width = np.float32((_POINT_RADIUS if form == "round" else 0.8 * _POINT_RADIUS) * size)
    if form == "radial":
        radial = radial - np.clip(radial, -extension, extension)
    elif form == "along":
        tangential = tangential - np.clip(tangential, -extension, extension)
    dome: FloatImage = np.sqrt(
        np.clip(1 - (radial * radial + tangential * tangential) / (half_width * half_width), 0, 1)
    )
    return dome
