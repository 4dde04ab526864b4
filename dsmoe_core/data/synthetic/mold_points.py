"""The eighteen mold-point types of a glass bottle's bottom: a row of raised points that tells the mold.

A type is how many points (2, 3 or 4), of what form (``round``; ``radial``: a bar that points to the centre;
``along``: a bar that lies along the ring) and how far apart (``close`` or ``wide``): 3 * 3 * 2 = 18, alike
but for one of these. A mark looks the same in a mirror and keeps its type when the bottle is turned, so that
augmentations of training never make one type of another. Lengths are shares of the image's side.
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

_THICK = 0.0095  # half the width of a point
_LONG = 0.0085  # what a bar is longer at either end
_GAP = {"close": 0.01, "wide": 0.03}  # between two points
_MARGIN = 0.008


class MoldType(NamedTuple):
    """What tells one type from the others."""

    points: int
    form: Form
    spacing: Spacing

    @property
    def name(self) -> str:
        return f"mold_{self.points}_{self.form}_{self.spacing}"

    @property
    def pitch(self) -> float:
        """From the middle of a point to that of the next."""
        return 2 * _THICK + (2 * _LONG if self.form == "along" else 0.0) + _GAP[self.spacing]

    @property
    def half_length(self) -> float:
        """Of the whole mark along the ring."""
        end = _THICK + (_LONG if self.form == "along" else 0.0)
        return (self.points - 1) / 2 * self.pitch + end


TYPES = tuple(MoldType(*parts) for parts in product(COUNTS, FORMS, SPACINGS))


class MoldMark(NamedTuple):
    """One mark on a bottle: its height, 0 to 1, at the image's fine positions, and its annotation."""

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
    """A mark on the ring of this centre and radius (pixels) at this angle; None where it leaves the image.

    Args:
        grid: x and y of the fine positions, in pixels of the image.
    """
    size = float(rng.uniform(0.93, 1.07)) * px
    height = np.zeros_like(grid[0])
    for i in range(kind.points):
        aside = (i - (kind.points - 1) / 2) * kind.pitch * size + float(rng.normal(0, 0.0006)) * px
        height = np.maximum(
            height, render_point(kind.form, centre, radius, angle + aside / radius, grid, size)
        )
    fine = len(height) / px
    box = mask_box(height > 0.08, _MARGIN * px, fine=round(fine))
    within = box is not None and min(box.x1, box.y1) > 0 and max(box.x2, box.y2) < px
    return MoldMark(height, Annotation(box, kind.name)) if box is not None and within else None


def render_point(
    form: Form,
    centre: tuple[float, float],
    radius: float,
    angle: float,
    grid: tuple[FloatImage, FloatImage],
    size: float,
) -> FloatImage:
    """The height of one point, 0 to 1: a dome, or a bar with round ends; ``size`` is the image's side."""
    toward_x, toward_y = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    x, y = grid[0] - np.float32(centre[0]), grid[1] - np.float32(centre[1])
    out, along = x * toward_x + y * toward_y - np.float32(radius), y * toward_x - x * toward_y
    reach = np.float32(0.0 if form == "round" else _LONG * size)
    thick = np.float32((_THICK if form == "round" else 0.8 * _THICK) * size)
    if form == "radial":
        out = out - np.clip(out, -reach, reach)
    elif form == "along":
        along = along - np.clip(along, -reach, reach)
    dome: FloatImage = np.sqrt(np.clip(1 - (out * out + along * along) / (thick * thick), 0, 1))
    return dome
