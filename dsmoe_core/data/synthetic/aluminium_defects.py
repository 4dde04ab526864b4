"""The four defects of aluminium foil and sheet, as changes to its grey levels.

The box of a defect is the bounding box of the visibly changed pixels (by more than ``_VISIBLE`` grey levels)
with a small margin, as a person would draw it. Lengths are fractions of the image's side.
"""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi, sin

import numpy as np

from dsmoe_core.data.synthetic.rendering import (
    FloatImage,
    Point,
    boxes_overlap,
    draw_lines,
    fill_polygons,
    mask_box,
    pixel_grid,
    smooth_noise,
    smooth_step,
)
from dsmoe_core.schema import Annotation

CLASSES = ("zhen_kong", "ca_shang", "zang_wu", "zhe_zhou")
CREASE = CLASSES[3]
_VISIBLE = 10.0
_MARGIN = 0.004
_MIN_SIDE = 0.008  # of the changed area
_MIN_CREASE_LENGTH = 0.12  # longer side of the changed area of a crease
_TRIES = 12


def add_defect(
    name: str, foil: FloatImage, metal: FloatImage, earlier: list[Annotation], rng: np.random.Generator
) -> tuple[FloatImage, Annotation | None]:
    """Add a defect whose box overlaps no earlier one; the foil is unchanged if no place was found.

    Args:
        foil: grey levels, (px, px).
        metal: coverage by the foil, 0 to 1, (px, px); the rest does not change.
    """
    px = len(foil)
    bright = ((metal > 0.99) & (foil > 45)).nonzero()
    if not len(bright[0]):
        return foil, None
    for _ in range(_TRIES):
        chosen = int(rng.integers(len(bright[0])))
        x, y = float(bright[1][chosen]) + 0.5, float(bright[0][chosen]) + 0.5
        changed = foil + (_RENDERERS[name](foil, x, y, rng) - foil) * metal
        visible = np.abs(np.clip(changed, 0, 255) - np.clip(foil, 0, 255)) > _VISIBLE
        tight, box = mask_box(visible, 0.0), mask_box(visible, _MARGIN * px)
        if tight is None or box is None or min(tight.width, tight.height) < _MIN_SIDE * px:
            continue
        if name == CREASE and max(tight.width, tight.height) < _MIN_CREASE_LENGTH * px:
            continue
        if not any(boxes_overlap(box, other.box) for other in earlier):
            return changed.astype(np.float32), Annotation(box, name)
    return foil, None


def _pinhole(foil: FloatImage, x: float, y: float, rng: np.random.Generator) -> FloatImage:
    """A small round pit, dark inside, with a sharp rim that may reflect light."""
    px = len(foil)
    radius = max(float(rng.uniform(0.006, 0.012)) * px, 1.6)
    at_x, at_y = pixel_grid(px)
    distance = np.hypot(at_x - x, (at_y - y) * np.float32(rng.uniform(0.9, 1.1)))
    hole = np.clip(radius - distance + 0.5, 0, 1)
    lit = (
        np.clip((at_x - x + at_y - y) / radius, 0, 1)
        * np.clip(radius + 1.2 - distance, 0, 1)
        * rng.uniform(0, 60)
    )
    return np.asarray((foil + lit) * (1 - hole) + rng.uniform(5, 25) * hole, dtype=np.float32)


def _scratch(foil: FloatImage, x: float, y: float, rng: np.random.Generator) -> FloatImage:
    """A thin dark or bright line, long or short and irregular, sometimes with further lines next to it."""
    px = len(foil)
    is_long = rng.random() < 0.65
    length = float(rng.uniform(0.16, 0.5) if is_long else rng.uniform(0.06, 0.14)) * px
    angle, width = float(rng.uniform(0, pi)), max(float(rng.uniform(0.002, 0.006)) * px, 0.8)
    lines = [_irregular_line(x, y, length, angle, rng)]
    for _ in range(int(rng.choice([0, 1, 2], p=[0.7, 0.2, 0.1]))):
        if is_long:
            offset = float(rng.uniform(0.012, 0.03)) * px
            start = (x - sin(angle) * offset, y + cos(angle) * offset)
            lines.append(_irregular_line(*start, length * float(rng.uniform(0.5, 0.9)), angle, rng))
        else:
            lines.append(_irregular_line(x, y, length * 0.6, angle + float(rng.uniform(0.3, 1.2)), rng))
    broken = rng.random() < 0.25
    pieces, widths, opacities = [], [], []
    for line in lines:
        for i in range(len(line) - 1):
            taper = min(1.0, 0.35 + 3 * min(i + 1, len(line) - 1 - i) / len(line))
            pieces.append(line[i : i + 2])
            widths.append(width * float(rng.uniform(0.7, 1.3)))
            opacities.append(
                taper * (float(rng.random() < 0.65) if broken else float(rng.uniform(0.75, 1.0)))
            )
    groove = draw_lines(px, pieces, widths, opacities)
    lit = np.roll(groove, (1, 1), (0, 1)) * (1 - groove)
    if rng.random() < 0.6:
        return np.asarray(foil * (1 - rng.uniform(0.5, 0.85) * groove) + 25 * lit, dtype=np.float32)
    return np.asarray(foil + rng.uniform(60, 120) * groove - 0.25 * foil * lit, dtype=np.float32)


def _irregular_line(x: float, y: float, length: float, angle: float, rng: np.random.Generator) -> list[Point]:
    """A slightly bent and uneven line of 24 segments, centred on (x, y)."""
    along = np.linspace(-0.5, 0.5, 25) * length
    bend = float(rng.uniform(-0.12, 0.12))
    uneven = np.cumsum(rng.normal(0, 0.002 * length, 25))
    across = bend * (along**2 / length) * 2 + uneven - uneven.mean()
    return [
        (x + float(a) * cos(angle) - float(b) * sin(angle), y + float(a) * sin(angle) + float(b) * cos(angle))
        for a, b in zip(along, across, strict=True)
    ]


def _contamination(foil: FloatImage, x: float, y: float, rng: np.random.Generator) -> FloatImage:
    """A black deposit with bright cracks, or a dull stain with a soft border."""
    px = len(foil)
    radius = float(rng.uniform(0.03, 0.075)) * px
    aspect, angle = float(rng.uniform(0.6, 1.0)), float(rng.uniform(0, pi))
    blob = _irregular_ellipse(x, y, radius, radius * aspect, angle, rng)
    if rng.random() < 0.5:
        patch = fill_polygons(px, [blob])
        cracks = draw_lines(
            px,
            [
                _irregular_line(
                    x + float(rng.normal(0, 0.35)) * radius,
                    y + float(rng.normal(0, 0.35)) * radius,
                    radius * float(rng.uniform(0.4, 1.1)),
                    float(rng.uniform(0, pi)),
                    rng,
                )
                for _ in range(9)
            ],
            [0.0022 * px] * 9,
            list(rng.uniform(0.1, 0.5, 9)),
        )
        dark = rng.uniform(6, 24) + 150 * cracks * patch
        return np.asarray(foil + (dark - foil) * patch, dtype=np.float32)
    patch = fill_polygons(px, [blob], softness=float(rng.uniform(0.004, 0.012)) * px)
    mottled = np.clip(1 + 0.35 * smooth_noise(px, 30, rng), 0.3, 1.4)
    return np.asarray(foil * (1 - patch * mottled * rng.uniform(0.35, 0.6)), dtype=np.float32)


def _irregular_ellipse(
    x: float, y: float, along: float, across: float, angle: float, rng: np.random.Generator
) -> list[Point]:
    corners = 40
    angles = np.arange(corners) * (2 * pi / corners)
    uneven = 1 + sum(
        float(rng.uniform(-0.14, 0.14)) / k * np.cos(k * angles + float(rng.uniform(0, 2 * pi)))
        for k in (2, 3, 5, 9)
    )
    u, v = along * uneven * np.cos(angles), across * uneven * np.sin(angles)
    return [
        (x + float(a) * cos(angle) - float(b) * sin(angle), y + float(a) * sin(angle) + float(b) * cos(angle))
        for a, b in zip(u, v, strict=True)
    ]


def _crease(foil: FloatImage, x: float, y: float, rng: np.random.Generator) -> FloatImage:
    """One to three parallel folds, each with a bright and a dark flank and a line of light between them."""
    px = len(foil)
    at_x, at_y = pixel_grid(px)
    angle, half = float(rng.uniform(0, pi)), float(rng.uniform(0.1, 0.6)) * px
    s = ((at_x - x) * cos(angle) + (at_y - y) * sin(angle)) / half
    t = (at_y - y) * cos(angle) - (at_x - x) * sin(angle)
    ends = 1 - smooth_step(np.abs(s), 0.65, 1.0)
    bend = float(rng.uniform(-0.12, 0.12)) * half
    depth = rng.uniform(0.3, 0.75)
    for fold in range(int(rng.integers(1, 4))):
        width = float(rng.uniform(0.006, 0.02)) * px * (1 + 0.4 * np.sin(s * float(rng.uniform(1, 4)) + fold))
        offset = fold * float(rng.uniform(0.025, 0.05)) * px
        tilt = float(rng.uniform(-0.06, 0.06)) * half if fold else 0.0
        distance = (t - offset - bend * s**2 - tilt * s) / np.maximum(width, 0.5)
        flanks = distance * np.exp(-(distance**2) / 2) * 1.65 * (1 if rng.random() < 0.5 else -1)
        line = np.exp(-((distance * 2.5) ** 2)) * rng.uniform(0, 60)
        foil = np.asarray(foil * (1 + depth * flanks * ends) + line * ends, dtype=np.float32)
    return foil


_RENDERERS: dict[str, Callable[[FloatImage, float, float, np.random.Generator], FloatImage]] = {
    "zhen_kong": _pinhole,
    "ca_shang": _scratch,
    "zang_wu": _contamination,
    "zhe_zhou": _crease,
}
