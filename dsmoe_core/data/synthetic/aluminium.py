"""Draws sealing foils in aluminium lids, and plain aluminium sheets, with known defects: images of our own.

A lid lies in a dark holder: a grey ring, within it the foil, brushed or rolled, lit by a ring light, so that
the camera's own shade is a dark patch in its middle and its dents glitter beside it. A foil may end short of
the ring. The camera sees grey. None of this is a defect. A third of the images show a sheet without a lid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from dsmoe_core.data.synthetic.aluminium_defects import CLASSES, CREASE, add_defect
from dsmoe_core.data.synthetic.rendering import (
    FloatImage,
    SyntheticImage,
    illumination,
    pixel_grid,
    simulate_camera,
    smooth_noise,
    smooth_step,
)
from dsmoe_core.schema import Annotation

__all__ = ["CLASSES", "render"]
_DEFECT_FREE_SHARE = 0.12  # share of images without a defect
_LIDS = 0.67  # share of lids; the others are sheets


@dataclass(slots=True)
class _Place:
    """Where the lid lies: centre and radius in pixels; rho is the distance to the centre in radii."""

    radius: float
    rho: FloatImage
    phi: FloatImage


def render(seed: int, px: int) -> SyntheticImage:
    """One lid or sheet of px x px pixels; the same seed and size draw the same image.

    Most have 1 to 5 defects, about one in eight has none. Classes are those of ``aluminium_defects.CLASSES``.
    """
    rng = np.random.default_rng(seed)
    place = _place(px, rng)
    is_lid = rng.random() < _LIDS
    foil = _lid_light(place, rng) if is_lid else _sheet_light(px, rng)
    foil = _glitter(foil, place, rng) * (1 + _texture(px, rng)) * _old_stains(px, rng)
    metal = _cut(place, rng) if is_lid else np.ones((px, px), np.float32)
    annotations: list[Annotation] = []
    wanted = 0 if rng.random() < _DEFECT_FREE_SHARE else int(rng.integers(1, 6))
    chosen = [CLASSES[i] for i in rng.permutation(np.tile(np.arange(len(CLASSES)), 2))][:wanted]
    for name in sorted(chosen, key=CREASE.__ne__):  # a crease needs the most room
        foil, added = add_defect(name, foil, metal, annotations, rng)
        if added is not None:
            annotations.append(added)
    grey = _in_holder(foil, metal, place, rng) if is_lid else foil
    tint = 1 + rng.uniform(-0.06, 0.06, 3).astype(np.float32) * (rng.random() < 0.3)
    image = grey[..., None] * illumination(px, rng) * tint.astype(np.float32)
    return SyntheticImage(simulate_camera(image, rng), tuple(annotations))


def _place(px: int, rng: np.random.Generator) -> _Place:
    radius = float(rng.uniform(0.33, 0.46)) * px
    room = max(px / 2 - radius, 0.0)
    centre_x, centre_y = (px / 2 + float(rng.uniform(-room, room)) for _ in range(2))
    x, y = pixel_grid(px)
    rho: FloatImage = np.hypot(x - centre_x, y - centre_y) / np.float32(radius)
    return _Place(radius, rho, np.arctan2(y - centre_y, x - centre_x))


def _lid_light(place: _Place, rng: np.random.Generator) -> FloatImage:
    """The ring light on a foil: dark in the middle where the camera is, bright around, dark to the rim."""
    px, rho = len(place.rho), place.rho + smooth_noise(len(place.rho), 5, rng) * np.float32(0.03)
    shade = 1 - np.float32(rng.uniform(0.4, 0.75)) * (
        1 - smooth_step(rho, 0.15, float(rng.uniform(0.45, 0.65)))
    )
    rim = 1 - np.float32(rng.uniform(0.3, 0.8)) * smooth_step(rho, float(rng.uniform(0.7, 0.88)), 1.02)
    uneven = 1 + smooth_noise(px, 3, rng) * np.float32(0.08)
    lit: FloatImage = np.float32(rng.uniform(130, 190)) * shade * rim * uneven
    return lit


def _sheet_light(px: int, rng: np.random.Generator) -> FloatImage:
    """A lamp beside the sheet: brightness falls off to one side, with a broad soft reflection."""
    x, y = pixel_grid(px)
    turn = float(rng.uniform(0, 2 * np.pi))
    along = ((x - px / 2) * np.cos(turn) + (y - px / 2) * np.sin(turn)) / px
    band = np.exp(-(((along - rng.uniform(-0.4, 0.4)) / rng.uniform(0.1, 0.4)) ** 2))
    lit = rng.uniform(95, 165) * (1 + rng.uniform(0.0, 0.6) * along + rng.uniform(0.0, 0.35) * band)
    return np.asarray(lit * (1 + smooth_noise(px, 3, rng) * 0.05), dtype=np.float32)


def _glitter(foil: FloatImage, place: _Place, rng: np.random.Generator) -> FloatImage:
    """Bright wedges where dents of the foil throw the lamp back; up to four."""
    px = len(foil)
    for _ in range(int(rng.integers(0, 5))):
        at, width = rng.uniform(0.3, 0.75), rng.uniform(0.02, 0.07)
        turn = np.angle(np.exp(1j * (place.phi - rng.uniform(-np.pi, np.pi))))
        far = (place.rho - at - rng.uniform(-0.15, 0.15) * turn) / width
        wedge = np.exp(-(far**2) - (turn / rng.uniform(0.15, 0.5)) ** 2)
        foil = foil + wedge * rng.uniform(35, 110) * (1 + 0.25 * smooth_noise(px, px / 3, rng))
    return np.asarray(foil, dtype=np.float32)


def _texture(px: int, rng: np.random.Generator) -> FloatImage:
    """Brushed: fine lines in one direction; or rolled: grain with faint broad lines; about zero."""
    side = px * 3 // 2
    long = (max(side // int(rng.integers(12, 40)), 2), side)
    lines = Image.fromarray(rng.normal(0, 1, (long[1], long[0])).astype(np.float32))
    lines = lines.resize((side, side), Image.Resampling.BILINEAR)
    turned = lines.rotate(float(rng.uniform(0, 180)), Image.Resampling.BILINEAR)
    edge = (side - px) // 2
    strokes = np.asarray(turned.crop((edge, edge, edge + px, edge + px)), dtype=np.float32)
    grain = smooth_noise(px, px / 1.5, rng)
    if rng.random() < 0.5:
        return strokes * np.float32(rng.uniform(0.03, 0.09)) + grain * np.float32(0.015)
    return strokes * np.float32(0.015) + grain * np.float32(rng.uniform(0.03, 0.07))


def _old_stains(px: int, rng: np.random.Generator) -> FloatImage:
    """Faint patches with a border, as rinsing leaves them: too weak to be called contamination; about one."""
    depth = np.float32(rng.uniform(0.0, 0.06))
    patches: FloatImage = 1 - depth * smooth_step(smooth_noise(px, 7, rng), 1.0, 1.15)
    return patches


def _cut(place: _Place, rng: np.random.Generator) -> FloatImage:
    """Where the foil is, 0 to 1: within the ring, and before its own straight edges where it ends short."""
    metal = np.clip((1 - place.rho) * np.float32(place.radius) + np.float32(0.5), 0, 1)
    for _ in range(int(rng.choice([0, 1, 2], p=[0.45, 0.35, 0.2]))):
        towards, reach = float(rng.uniform(-np.pi, np.pi)), float(rng.uniform(0.7, 0.95))
        beyond = (place.rho * np.cos(place.phi - towards) - reach) * place.radius
        metal = metal * np.clip(0.5 - beyond / rng.uniform(0.6, 4.0), 0, 1)
    return np.asarray(metal, dtype=np.float32)


def _in_holder(foil: FloatImage, metal: FloatImage, place: _Place, rng: np.random.Generator) -> FloatImage:
    """The foil in its lid: the grey ring around it and the dark holder."""
    ring = float(rng.uniform(1.05, 1.1))
    soft = 1.5 / place.radius
    grey = np.float32(rng.uniform(3, 12)) + np.float32(12) * (
        1 - smooth_step(place.rho, ring + 0.12, ring + 0.16)
    )
    on_ring = smooth_step(place.rho, 1.0 - soft, 1.0 + soft) * (
        1 - smooth_step(place.rho, ring - soft, ring + soft)
    )
    grey = grey + (np.float32(rng.uniform(95, 160)) * (1 + 0.1 * np.cos(place.phi - 1)) - grey) * on_ring
    whole: FloatImage = grey + (foil - grey) * metal
    return whole
