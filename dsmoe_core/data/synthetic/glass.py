"""Renders bottoms of glass bottles with mold points, in place of a data set that is not public.

The view is from below: the heel and the refraction rings of the curved bottom, a ring of knurling, the
push-up in the middle with an embossed numeral, and the mold points on a ring of their own
(``mold_points.py``). Single points, bubbles and the numeral are distractors without annotations.
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
FINE = 2
"""Samples per image pixel along each axis."""
_EMPTY_SHARE = 0.1  # share of images without a mold point
_MAX_MARKS = 4
_GLASS: tuple[Colour, ...] = ((202, 212, 208), (92, 158, 104), (186, 118, 52), (136, 178, 190))
_DIGIT_SEGMENTS = ("abcdef", "bc", "abdeg", "abcdg", "bcfg", "acdfg", "acdefg", "abc", "abcdefg", "abcdfg")


@dataclass(slots=True)
class _Bottom:
    """Position of the round bottom.

    Attributes:
        px: side of the image.
        centre, radius: in pixels.
        grid: x and y of all samples, in pixels.
        rho, phi: polar coordinates of all samples about the centre; rho in radii.
    """

    px: int
    centre: tuple[float, float]
    radius: float
    grid: tuple[FloatImage, FloatImage]
    rho: FloatImage
    phi: FloatImage


def render(seed: int, px: int) -> SyntheticImage:
    """Render one bottom of px x px pixels; equal arguments give equal images.

    Most have 1 to 4 mold points, one in ten has none. Classes are those of ``mold_points.CLASSES``.
    """
    rng = np.random.default_rng(seed)
    bottom = _bottom(px, rng)
    tone = _rings(bottom, rng) + _knurling(bottom, rng) + _push_up(bottom, rng)
    height, annotations = _marks(bottom, rng)
    height = np.maximum(height, _single_points(bottom, annotations, rng))
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
    """Bright and dark refraction rings, irregular and denser towards the heel; close to zero."""
    tone = np.zeros_like(bottom.rho)
    for _ in range(int(rng.integers(7, 13))):
        radius, width = 1 - float(rng.beta(1.0, 2.2)) * 0.75, float(rng.uniform(0.006, 0.03))
        rho = bottom.rho + np.cos(bottom.phi - rng.uniform(-np.pi, np.pi)) * rng.uniform(0, 0.012)
        uneven = 1 + 0.5 * np.cos(bottom.phi * int(rng.integers(1, 3)) - rng.uniform(-np.pi, np.pi))
        tone += rng.uniform(-0.16, 0.16) * uneven * np.exp(-(((rho - radius) / width) ** 2))
    return tone.astype(np.float32)


def _knurling(bottom: _Bottom, rng: np.random.Generator) -> FloatImage:
    """A ring of fine ridges on which the bottle stands; close to zero."""
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
    """The raised middle: shading, and faint waves from the cold mold; close to zero."""
    side = bottom.px * FINE
    edge = float(rng.uniform(0.4, 0.55))
    dome = (1 - smooth_step(bottom.rho, edge - 0.12, edge)) * rng.uniform(-0.15, 0.15)
    shade = np.cos(bottom.phi - rng.uniform(-np.pi, np.pi)) * bottom.rho * rng.uniform(0.0, 0.18)
    waves = smooth_noise(side, 9, rng) * rng.uniform(0.01, 0.05) + smooth_noise(side, 40, rng) * rng.uniform(
        0.003, 0.015
    )
    return np.asarray(dome + shade + waves, dtype=np.float32)


def _marks(bottom: _Bottom, rng: np.random.Generator) -> tuple[FloatImage, list[Annotation]]:
    """The height map of all mold points and their annotations; boxes do not overlap."""
    height = np.zeros_like(bottom.rho)
    annotations: list[Annotation] = []
    count = 0 if rng.random() < _EMPTY_SHARE else int(rng.integers(1, _MAX_MARKS + 1))
    ring = float(rng.uniform(0.6, 0.72)) * bottom.radius
    start = float(rng.uniform(-np.pi, np.pi))
    for i in range(count):
        kind = TYPES[int(rng.integers(len(TYPES)))]
        angle = start + 2 * np.pi * (i + float(rng.uniform(-0.2, 0.2))) / count
        mark = render_mark(kind, bottom.centre, ring, angle, bottom.grid, rng, px=bottom.px)
        if mark is not None and not any(boxes_overlap(mark.annotation.box, a.box) for a in annotations):
            height = np.maximum(height, mark.height)
            annotations.append(mark.annotation)
    return height, annotations


def _single_points(bottom: _Bottom, annotations: list[Annotation], rng: np.random.Generator) -> FloatImage:
    """Height map of single points away from the marks, such as the start point of a reader; not annotated."""
    height = np.zeros_like(bottom.rho)
    clearance = 0.06 * bottom.px
    for _ in range(int(rng.choice([0, 1, 2], p=[0.5, 0.3, 0.2]))):
        angle, ring = float(rng.uniform(-np.pi, np.pi)), float(rng.uniform(0.58, 0.74)) * bottom.radius
        x = bottom.centre[0] + ring * float(np.cos(angle))
        y = bottom.centre[1] + ring * float(np.sin(angle))
        boxes = [a.box for a in annotations]
        if any(
            b.x1 - clearance < x < b.x2 + clearance and b.y1 - clearance < y < b.y2 + clearance for b in boxes
        ):
            continue
        form = FORMS[int(rng.integers(len(FORMS)))]
        point = render_point(form, bottom.centre, ring, angle, bottom.grid, bottom.px)
        height = np.maximum(height, point)
    return height


def _numeral(bottom: _Bottom, rng: np.random.Generator) -> FloatImage:
    """Height map, 0 to 1, of one or two embossed seven-segment digits in the middle, at a random rotation."""
    height, angle = float(rng.uniform(0.06, 0.1)) * bottom.px, float(rng.uniform(0, 2 * np.pi))
    width = height * 0.55
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
    for position in range(digits):
        for stroke in _DIGIT_SEGMENTS[int(rng.integers(10))]:
            points = []
            for u, v in ends[stroke]:
                across = (u + 1.5 * position - 0.75 * digits + 0.25) * width
                down = (v - 1) * height / 2
                points.append(
                    (
                        bottom.centre[0] + across * float(np.cos(angle)) - down * float(np.sin(angle)),
                        bottom.centre[1] + across * float(np.sin(angle)) + down * float(np.cos(angle)),
                    )
                )
            lines.append(points)
    flat = draw_lines(bottom.px, lines, [0.012 * bottom.px] * len(lines), [0.9] * len(lines))
    raised: FloatImage = np.repeat(np.repeat(flat, FINE, 0), FINE, 1)
    return raised


def _relief(height: FloatImage, rng: np.random.Generator) -> FloatImage:
    """Shading of raised glass: a lit and a dark flank, a dark foot, a bright top; close to zero."""
    angle, flanks = float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(0.35, 0.6))
    down, right = np.gradient(height)
    slope = right * np.cos(angle) + down * np.sin(angle)
    steep = np.hypot(right, down)
    tone = flanks * slope - rng.uniform(0.3, 0.6) * steep + rng.uniform(0.05, 0.25) * height**2
    return np.asarray(np.clip(tone, -0.5, 0.5), dtype=np.float32)


def _bubbles(bottom: _Bottom, rng: np.random.Generator) -> FloatImage:
    """Darkening by small round air bubbles, each of which shows as a dark ring."""
    dark = np.zeros_like(bottom.rho)
    for _ in range(int(rng.integers(0, 4))):
        angle, distance = float(rng.uniform(-np.pi, np.pi)), float(rng.uniform(0.05, 0.75)) * bottom.radius
        x, y = bottom.centre[0] + distance * np.cos(angle), bottom.centre[1] + distance * np.sin(angle)
        size = float(rng.uniform(0.004, 0.009)) * bottom.px
        rho = np.hypot(bottom.grid[0] - x, bottom.grid[1] - y) / size
        dark += 0.25 * np.exp(-(((rho - 1) / 0.35) ** 2))
    return dark.astype(np.float32)


def _coloured(tone: FloatImage, bottom: _Bottom, rng: np.random.Generator) -> FloatImage:
    """Colour the bottom as glass in front of a dark or a bright background, (px, px, 3)."""
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
    thick = (
        np.float32(255) * grey * glass ** (np.float32(1.5) - np.minimum(grey, 1))
    )  # darker glass is more saturated
    background = float(rng.choice([float(rng.uniform(8, 40)), float(rng.uniform(190, 235))], p=[0.7, 0.3]))
    return np.asarray((background + (thick - background) * share) * illumination(px, rng), dtype=np.float32)
