"""Draws bottoms of glass bottles with mold points: images of our own for a data set that is not public.

Seen from below through the glass: the heel and the rings that the curved bottom refracts, a ring of knurling,
the push-up in the middle with an embossed numeral, and on a ring of their own the mold points
(``mold_points.py``). Lone points, bubbles and the numeral are no mold points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dsmoe_core.data.synthetic.mold_points import CLASSES, FORMS, TYPES, render_mark, render_point
from dsmoe_core.data.synthetic.rendering import (
    Colour,
    FloatImage,
    SyntheticImage,
    boxes_overlap,
    draw_lines,
    illumination,
    pixel_grid,
    simulate_camera,
    smooth_noise,
    smooth_step,
)
from dsmoe_core.schema import Annotation

__all__ = ["CLASSES", "render"]
FINE = 2  # positions an image pixel, in x and in y
_DEFECT_FREE_SHARE = 0.1  # share of images without a mold point
_MOST = 4
_GLASS: tuple[Colour, ...] = ((202, 212, 208), (92, 158, 104), (186, 118, 52), (136, 178, 190))
_SEGMENTS = ("abcdef", "bc", "abdeg", "abcdg", "bcfg", "acdfg", "acdefg", "abc", "abcdefg", "abcdfg")


@dataclass(slots=True)
class _Bottom:
    """A round bottom: centre and radius in pixels, and of every fine position its rho (radii) and angle."""

    px: int
    centre: tuple[float, float]
    radius: float
    grid: tuple[FloatImage, FloatImage]
    rho: FloatImage
    phi: FloatImage


def render(seed: int, px: int) -> SyntheticImage:
    """One bottom of px x px pixels; the same seed and size draw the same image.

    Most have 1 to 4 mold points, one in ten has none. Classes are those of ``mold_points.CLASSES``.
    """
    rng = np.random.default_rng(seed)
    bottom = _bottom(px, rng)
    tone = _rings(bottom, rng) + _knurling(bottom, rng) + _push_up(bottom, rng)
    height, annotations = _marks(bottom, rng)
    height = np.maximum(height, _lone_points(bottom, annotations, rng))
    height = np.maximum(height, _numeral(bottom, rng))
    tone = tone + _relief(height, rng) - _bubbles(bottom, rng)
    return SyntheticImage(simulate_camera(_coloured(tone, bottom, rng), rng), tuple(annotations))


def _bottom(px: int, rng: np.random.Generator) -> _Bottom:
    radius = float(rng.uniform(0.42, 0.5)) * px
    centre_x, centre_y = (px / 2 + float(rng.uniform(-0.02, 0.02)) * px for _ in range(2))
    grid = pixel_grid(px, FINE)
    x, y = grid[0] - np.float32(centre_x), grid[1] - np.float32(centre_y)
    return _Bottom(
        px, (centre_x, centre_y), radius, grid, np.hypot(x, y) / np.float32(radius), np.arctan2(y, x)
    )


def _rings(bottom: _Bottom, rng: np.random.Generator) -> FloatImage:
    """Bright and dark rings of refraction, crowded towards the heel; none quite round or even; about zero."""
    tone = np.zeros_like(bottom.rho)
    for _ in range(int(rng.integers(7, 13))):
        at, width = 1 - float(rng.beta(1.0, 2.2)) * 0.75, float(rng.uniform(0.006, 0.03))
        off = bottom.rho + np.cos(bottom.phi - rng.uniform(-np.pi, np.pi)) * rng.uniform(0, 0.012)
        uneven = 1 + 0.5 * np.cos(bottom.phi * int(rng.integers(1, 3)) - rng.uniform(-np.pi, np.pi))
        tone += rng.uniform(-0.16, 0.16) * uneven * np.exp(-(((off - at) / width) ** 2))
    return tone.astype(np.float32)


def _knurling(bottom: _Bottom, rng: np.random.Generator) -> FloatImage:
    """A ring of fine ridges on which the bottle stands, about zero."""
    inner = float(rng.uniform(0.8, 0.84))
    outer = inner + float(rng.uniform(0.07, 0.11))
    ring = smooth_step(bottom.rho, inner - 0.01, inner + 0.015) * (
        1 - smooth_step(bottom.rho, outer - 0.015, outer + 0.01)
    )
    count, lean = int(rng.integers(70, 120)), float(rng.choice([-14.0, 0.0, 14.0]))
    wave = np.cos(bottom.phi * count + bottom.rho * lean)
    lit = 0.65 + 0.35 * np.cos(bottom.phi - rng.uniform(-np.pi, np.pi))
    return np.asarray(
        ring * wave * lit * rng.uniform(0.1, 0.2) - ring * rng.uniform(0, 0.1), dtype=np.float32
    )


def _push_up(bottom: _Bottom, rng: np.random.Generator) -> FloatImage:
    """The raised middle: shading, and faint waves that the cold mold left; about zero."""
    side = bottom.px * FINE
    edge = float(rng.uniform(0.4, 0.55))
    dome = (1 - smooth_step(bottom.rho, edge - 0.12, edge)) * rng.uniform(-0.15, 0.15)
    shade = np.cos(bottom.phi - rng.uniform(-np.pi, np.pi)) * bottom.rho * rng.uniform(0.0, 0.18)
    waves = smooth_noise(side, 9, rng) * rng.uniform(0.01, 0.05) + smooth_noise(side, 40, rng) * rng.uniform(
        0.003, 0.015
    )
    return np.asarray(dome + shade + waves, dtype=np.float32)


def _marks(bottom: _Bottom, rng: np.random.Generator) -> tuple[FloatImage, list[Annotation]]:
    """The height of all mold points and their annotations; their boxes do not meet."""
    height = np.zeros_like(bottom.rho)
    annotations: list[Annotation] = []
    wanted = 0 if rng.random() < _DEFECT_FREE_SHARE else int(rng.integers(1, _MOST + 1))
    ring = float(rng.uniform(0.6, 0.72)) * bottom.radius
    start = float(rng.uniform(-np.pi, np.pi))
    for i in range(wanted):
        kind = TYPES[int(rng.integers(len(TYPES)))]
        angle = start + 2 * np.pi * (i + float(rng.uniform(-0.2, 0.2))) / wanted
        mark = render_mark(kind, bottom.centre, ring, angle, bottom.grid, rng, px=bottom.px)
        if mark is not None and not any(boxes_overlap(mark.annotation.box, a.box) for a in annotations):
            height = np.maximum(height, mark.height)
            annotations.append(mark.annotation)
    return height, annotations


def _lone_points(bottom: _Bottom, annotations: list[Annotation], rng: np.random.Generator) -> FloatImage:
    """Single points away from the marks, such as the one where a reader begins; one is no mold point."""
    height = np.zeros_like(bottom.rho)
    room = 0.06 * bottom.px
    for _ in range(int(rng.choice([0, 1, 2], p=[0.5, 0.3, 0.2]))):
        angle, ring = float(rng.uniform(-np.pi, np.pi)), float(rng.uniform(0.58, 0.74)) * bottom.radius
        x = bottom.centre[0] + ring * float(np.cos(angle))
        y = bottom.centre[1] + ring * float(np.sin(angle))
        boxes = [a.box for a in annotations]
        if any(b.x1 - room < x < b.x2 + room and b.y1 - room < y < b.y2 + room for b in boxes):
            continue
        form = FORMS[int(rng.integers(len(FORMS)))]
        point = render_point(form, bottom.centre, ring, angle, bottom.grid, bottom.px)
        height = np.maximum(height, point)
    return height


def _numeral(bottom: _Bottom, rng: np.random.Generator) -> FloatImage:
    """One or two embossed digits in the middle, of seven strokes each, turned anyhow; height, 0 to 1."""
    tall, turn = float(rng.uniform(0.06, 0.1)) * bottom.px, float(rng.uniform(0, 2 * np.pi))
    wide = tall * 0.55
    ends = {
        "a": ((0, 0), (1, 0)),
        "b": ((1, 0), (1, 1)),
        "c": ((1, 1), (1, 2)),
        "d": ((0, 2), (1, 2)),
        "e": ((0, 1), (0, 2)),
        "f": ((0, 0), (0, 1)),
        "g": ((0, 1), (1, 1)),
    }
    digits = int(rng.integers(1, 3))
    lines = []
    for place in range(digits):
        for stroke in _SEGMENTS[int(rng.integers(10))]:
            points = []
            for u, v in ends[stroke]:
                across = (u + 1.5 * place - 0.75 * digits + 0.25) * wide
                down = (v - 1) * tall / 2
                points.append(
                    (
                        bottom.centre[0] + across * float(np.cos(turn)) - down * float(np.sin(turn)),
                        bottom.centre[1] + across * float(np.sin(turn)) + down * float(np.cos(turn)),
                    )
                )
            lines.append(points)
    flat = draw_lines(bottom.px, lines, [0.012 * bottom.px] * len(lines), [0.9] * len(lines))
    raised: FloatImage = np.repeat(np.repeat(flat, FINE, 0), FINE, 1)
    return raised


def _relief(height: FloatImage, rng: np.random.Generator) -> FloatImage:
    """What raised glass does to light: a lit and a dark flank, a dark foot, a bright top; about zero."""
    turn, flanks = float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(0.35, 0.6))
    down, right = np.gradient(height)
    slope = right * np.cos(turn) + down * np.sin(turn)
    steep = np.hypot(right, down)
    tone = flanks * slope - rng.uniform(0.3, 0.6) * steep + rng.uniform(0.05, 0.25) * height**2
    return np.asarray(np.clip(tone, -0.5, 0.5), dtype=np.float32)


def _bubbles(bottom: _Bottom, rng: np.random.Generator) -> FloatImage:
    """Small round seeds of air: a dark ring each; what they take from the light."""
    dark = np.zeros_like(bottom.rho)
    for _ in range(int(rng.integers(0, 4))):
        angle, far = float(rng.uniform(-np.pi, np.pi)), float(rng.uniform(0.05, 0.75)) * bottom.radius
        x, y = bottom.centre[0] + far * np.cos(angle), bottom.centre[1] + far * np.sin(angle)
        size = float(rng.uniform(0.004, 0.009)) * bottom.px
        away = np.hypot(bottom.grid[0] - x, bottom.grid[1] - y) / size
        dark += 0.25 * np.exp(-(((away - 1) / 0.35) ** 2))
    return dark.astype(np.float32)


def _coloured(tone: FloatImage, bottom: _Bottom, rng: np.random.Generator) -> FloatImage:
    """The bottom in its glass before a dark or a bright ground, (px, px, 3)."""
    px = bottom.px
    edge = 1.5 / bottom.radius
    inside = 1 - smooth_step(bottom.rho, 1 - edge, 1 + edge)
    heel = 1 - 0.7 * smooth_step(bottom.rho, 0.93, 1.0)
    level = np.clip(float(rng.uniform(0.5, 0.75)) * heel + tone, 0.02, 1.25)
    grey = level.reshape(px, FINE, px, FINE).mean((1, 3))[..., None]
    share = inside.reshape(px, FINE, px, FINE).mean((1, 3))[..., None]
    colour = np.array(_GLASS[int(rng.choice(len(_GLASS), p=[0.4, 0.25, 0.2, 0.15]))], np.float32)
    glass: FloatImage = np.clip(colour * rng.uniform(0.94, 1.06, 3).astype(np.float32), 0, 255) / np.float32(
        255
    )
    thick = np.float32(255) * grey * glass ** (np.float32(1.5) - np.minimum(grey, 1))  # darker is richer
    ground = float(rng.choice([float(rng.uniform(8, 40)), float(rng.uniform(190, 235))], p=[0.7, 0.3]))
    return np.asarray((ground + (thick - ground) * share) * illumination(px, rng), dtype=np.float32)
