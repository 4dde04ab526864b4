"""The four defects of aluminium foil and sheet, as changes to its brightness.

The box of a defect is that of the pixels that it changed visibly, by more than ``_SEEN`` grey values, with a
small margin, as a person would draw it. Lengths are shares of the image's side.
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
_SEEN = 10.0
_MARGIN = 0.004
_LEAST = 0.008  # least side of what changed, and of a crease its longer one
_LEAST_CREASE = 0.12
_TRIES = 12


def add_defect(
    name: str, foil: FloatImage, metal: FloatImage, earlier: list[Annotation], rng: np.random.Generator
) -> tuple[FloatImage, Annotation | None]:
    """The foil with one more defect, whose box meets no earlier one; unchanged where none found a place.

    Args:
        foil: brightness, (px, px).
        metal: where the foil is, 0 to 1, (px, px); nothing else changes.
    """
    px = len(foil)
    bright = ((metal > 0.99) & (foil > 45)).nonzero()
    if not len(bright[0]):
        return foil, None
    for _ in range(_TRIES):
        chosen = int(rng.integers(len(bright[0])))
        x, y = float(bright[1][chosen]) + 0.5, float(bright[0][chosen]) + 0.5
        changed = foil + (_MAKERS[name](foil, x, y, rng) - foil) * metal
        seen = np.abs(np.clip(changed, 0, 255) - np.clip(foil, 0, 255)) > _SEEN
        bare, box = mask_box(seen, 0.0), mask_box(seen, _MARGIN * px)
        if bare is None or box is None or min(bare.width, bare.height) < _LEAST * px:
            continue
        if name == CREASE and max(bare.width, bare.height) < _LEAST_CREASE * px:
            continue
        if not any(boxes_overlap(box, other.box) for other in earlier):
            return changed.astype(np.float32), Annotation(box, name)
    return foil, None


def _pinhole(foil: FloatImage, x: float, y: float, rng: np.random.Generator) -> FloatImage:
    """A small round pit, dark inside, with a sharp and sometimes glinting rim."""
    px = len(foil)
    radius = max(float(rng.uniform(0.006, 0.012)) * px, 1.6)
    at_x, at_y = pixel_grid(px)
    far = np.hypot(at_x - x, (at_y - y) * np.float32(rng.uniform(0.9, 1.1)))
    hole = np.clip(radius - far + 0.5, 0, 1)
    lit = (
        np.clip((at_x - x + at_y - y) / radius, 0, 1) * np.clip(radius + 1.2 - far, 0, 1) * rng.uniform(0, 60)
    )
    return np.asarray((foil + lit) * (1 - hole) + rng.uniform(5, 25) * hole, dtype=np.float32)


def _scratch(foil: FloatImage, x: float, y: float, rng: np.random.Generator) -> FloatImage:
    """A thin line, long or short and torn, sometimes with others beside it; dark or bright."""
    px = len(foil)
    is_long = rng.random() < 0.65
    length = float(rng.uniform(0.16, 0.5) if is_long else rng.uniform(0.06, 0.14)) * px
    angle, width = float(rng.uniform(0, pi)), max(float(rng.uniform(0.002, 0.006)) * px, 0.8)
    lines = [_wobbling(x, y, length, angle, rng)]
    for _ in range(int(rng.choice([0, 1, 2], p=[0.7, 0.2, 0.1]))):
        if is_long:
            aside = float(rng.uniform(0.012, 0.03)) * px
            start = (x - sin(angle) * aside, y + cos(angle) * aside)
            lines.append(_wobbling(*start, length * float(rng.uniform(0.5, 0.9)), angle, rng))
        else:
            lines.append(_wobbling(x, y, length * 0.6, angle + float(rng.uniform(0.3, 1.2)), rng))
    broken = rng.random() < 0.25
    pieces, widths, shares = [], [], []
    for line in lines:
        for i in range(len(line) - 1):
            whole = min(1.0, 0.35 + 3 * min(i + 1, len(line) - 1 - i) / len(line))
            pieces.append(line[i : i + 2])
            widths.append(width * float(rng.uniform(0.7, 1.3)))
            shares.append(whole * (float(rng.random() < 0.65) if broken else float(rng.uniform(0.75, 1.0))))
    groove = draw_lines(px, pieces, widths, shares)
    lit = np.roll(groove, (1, 1), (0, 1)) * (1 - groove)
    if rng.random() < 0.6:
        return np.asarray(foil * (1 - rng.uniform(0.5, 0.85) * groove) + 25 * lit, dtype=np.float32)
    return np.asarray(foil + rng.uniform(60, 120) * groove - 0.25 * foil * lit, dtype=np.float32)


def _wobbling(x: float, y: float, length: float, angle: float, rng: np.random.Generator) -> list[Point]:
    """A slightly bent and uneven line about (x, y), of 24 pieces."""
    along = np.linspace(-0.5, 0.5, 25) * length
    bend = float(rng.uniform(-0.12, 0.12))
    uneven = np.cumsum(rng.normal(0, 0.002 * length, 25))
    across = bend * (along**2 / length) * 2 + uneven - uneven.mean()
    return [
        (x + float(a) * cos(angle) - float(b) * sin(angle), y + float(a) * sin(angle) + float(b) * cos(angle))
        for a, b in zip(along, across, strict=True)
    ]


def _contamination(foil: FloatImage, x: float, y: float, rng: np.random.Generator) -> FloatImage:
    """A black scab with cracks that shine, or a dull stain with a soft border."""
    px = len(foil)
    radius = float(rng.uniform(0.03, 0.075)) * px
    slim, turn = float(rng.uniform(0.6, 1.0)), float(rng.uniform(0, pi))
    blob = _uneven_round(x, y, radius, radius * slim, turn, rng)
    if rng.random() < 0.5:
        patch = fill_polygons(px, [blob])
        cracks = draw_lines(
            px,
            [
                _wobbling(
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


def _uneven_round(
    x: float, y: float, along: float, across: float, turn: float, rng: np.random.Generator
) -> list[Point]:
    corners = 40
    angles = np.arange(corners) * (2 * pi / corners)
    uneven = 1 + sum(
        float(rng.uniform(-0.14, 0.14)) / k * np.cos(k * angles + float(rng.uniform(0, 2 * pi)))
        for k in (2, 3, 5, 9)
    )
    u, v = along * uneven * np.cos(angles), across * uneven * np.sin(angles)
    return [
        (x + float(a) * cos(turn) - float(b) * sin(turn), y + float(a) * sin(turn) + float(b) * cos(turn))
        for a, b in zip(u, v, strict=True)
    ]


def _crease(foil: FloatImage, x: float, y: float, rng: np.random.Generator) -> FloatImage:
    """One to three folds side by side: each a bright flank beside a dark one, and a line of light between."""
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
        aside = fold * float(rng.uniform(0.025, 0.05)) * px
        tilt = float(rng.uniform(-0.06, 0.06)) * half if fold else 0.0
        far = (t - aside - bend * s**2 - tilt * s) / np.maximum(width, 0.5)
        flanks = far * np.exp(-(far**2) / 2) * 1.65 * (1 if rng.random() < 0.5 else -1)
        line = np.exp(-((far * 2.5) ** 2)) * rng.uniform(0, 60)
        foil = np.asarray(foil * (1 + depth * flanks * ends) + line * ends, dtype=np.float32)
    return foil


_MAKERS: dict[str, Callable[[FloatImage, float, float, np.random.Generator], FloatImage]] = {
    "zhen_kong": _pinhole,
    "ca_shang": _scratch,
    "zang_wu": _contamination,
    "zhe_zhou": _crease,
}
