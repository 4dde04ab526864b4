"""Renders sealing foils in aluminium lids, and plain aluminium sheets, with known defects.

A lid lies in a dark holder. It is a grey ring with a brushed or rolled foil in it, under a ring light: the
camera is reflected as a dark patch in the middle, and dents in the foil give bright reflections. The foil may
not reach the ring everywhere. None of this is a defect. A third of the images show a sheet without a lid.
Images are nearly grey.
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
_LID_SHARE = 0.67  # the other images show sheets


@dataclass(slots=True)
class _LidPosition:
    """Position of the lid.

    Attributes:
        radius: in pixels.
        rho, phi: polar coordinates of each pixel about the centre; rho in radii.
    """

    radius: float
    rho: FloatImage
    phi: FloatImage


def render(seed: int, px: int) -> SyntheticImage:
    """Render one lid or sheet of px x px pixels; equal arguments give equal images.

    Most have 1 to 5 defects, about one in eight has none. Classes are those of ``aluminium_defects.CLASSES``.
    """
    rng = np.random.default_rng(seed)
    lid = _random_position(px, rng)
    is_lid = rng.random() < _LID_SHARE
    foil = _lid_illumination(lid, rng) if is_lid else _sheet_illumination(px, rng)
    foil = _reflections(foil, lid, rng) * (1 + _texture(px, rng)) * _faint_stains(px, rng)
    metal = _foil_coverage(lid, rng) if is_lid else np.ones((px, px), np.float32)
    annotations: list[Annotation] = []
    count = 0 if rng.random() < _DEFECT_FREE_SHARE else int(rng.integers(1, 6))
    chosen = [CLASSES[i] for i in rng.permutation(np.tile(np.arange(len(CLASSES)), 2))][:count]
    for name in sorted(chosen, key=CREASE.__ne__):  # creases need the most space
        foil, added = add_defect(name, foil, metal, annotations, rng)
        if added is not None:
            annotations.append(added)
    grey = _in_holder(foil, metal, lid, rng) if is_lid else foil
    tint = 1 + rng.uniform(-0.06, 0.06, 3).astype(np.float32) * (rng.random() < 0.3)
    image = grey[..., None] * illumination(px, rng) * tint.astype(np.float32)
    return SyntheticImage(simulate_camera(image, rng), tuple(annotations))


def _random_position(px: int, rng: np.random.Generator) -> _LidPosition:
    radius = float(rng.uniform(0.33, 0.46)) * px
    max_shift = max(px / 2 - radius, 0.0)
    centre_x, centre_y = (px / 2 + float(rng.uniform(-max_shift, max_shift)) for _ in range(2))
    x, y = pixel_grid(px)
    rho: FloatImage = np.hypot(x - centre_x, y - centre_y) / np.float32(radius)
    return _LidPosition(radius, rho, np.arctan2(y - centre_y, x - centre_x))


def _lid_illumination(lid: _LidPosition, rng: np.random.Generator) -> FloatImage:
    """Grey levels of a foil under the ring light: dark in the middle, bright around it, dark at the rim."""
    px, rho = len(lid.rho), lid.rho + smooth_noise(len(lid.rho), 5, rng) * np.float32(0.03)
    shade = 1 - np.float32(rng.uniform(0.4, 0.75)) * (
        1 - smooth_step(rho, 0.15, float(rng.uniform(0.45, 0.65)))
    )
    rim = 1 - np.float32(rng.uniform(0.3, 0.8)) * smooth_step(rho, float(rng.uniform(0.7, 0.88)), 1.02)
    uneven = 1 + smooth_noise(px, 3, rng) * np.float32(0.08)
    lit: FloatImage = np.float32(rng.uniform(130, 190)) * shade * rim * uneven
    return lit


def _sheet_illumination(px: int, rng: np.random.Generator) -> FloatImage:
    """Grey levels of a sheet under a lamp at its side: a gradient with a broad soft reflection."""
    x, y = pixel_grid(px)
    direction = float(rng.uniform(0, 2 * np.pi))
    distance = ((x - px / 2) * np.cos(direction) + (y - px / 2) * np.sin(direction)) / px
    band = np.exp(-(((distance - rng.uniform(-0.4, 0.4)) / rng.uniform(0.1, 0.4)) ** 2))
    lit = rng.uniform(95, 165) * (1 + rng.uniform(0.0, 0.6) * distance + rng.uniform(0.0, 0.35) * band)
    return np.asarray(lit * (1 + smooth_noise(px, 3, rng) * 0.05), dtype=np.float32)


def _reflections(foil: FloatImage, lid: _LidPosition, rng: np.random.Generator) -> FloatImage:
    """Add up to four bright wedges where dents in the foil reflect the lamp."""
    px = len(foil)
    for _ in range(int(rng.integers(0, 5))):
        radius, width = rng.uniform(0.3, 0.75), rng.uniform(0.02, 0.07)
        angle = np.angle(np.exp(1j * (lid.phi - rng.uniform(-np.pi, np.pi))))
        distance = (lid.rho - radius - rng.uniform(-0.15, 0.15) * angle) / width
        wedge = np.exp(-(distance**2) - (angle / rng.uniform(0.15, 0.5)) ** 2)
        foil = foil + wedge * rng.uniform(35, 110) * (1 + 0.25 * smooth_noise(px, px / 3, rng))
    return np.asarray(foil, dtype=np.float32)


def _texture(px: int, rng: np.random.Generator) -> FloatImage:
    """Texture of brushed metal (fine lines in one direction) or rolled metal (grain); close to zero."""
    side = px * 3 // 2
    columns = max(side // int(rng.integers(12, 40)), 2)
    lines = Image.fromarray(rng.normal(0, 1, (side, columns)).astype(np.float32))
    lines = lines.resize((side, side), Image.Resampling.BILINEAR)
    rotated = lines.rotate(float(rng.uniform(0, 180)), Image.Resampling.BILINEAR)
    edge = (side - px) // 2
    strokes = np.asarray(rotated.crop((edge, edge, edge + px, edge + px)), dtype=np.float32)
    grain = smooth_noise(px, px / 1.5, rng)
    if rng.random() < 0.5:
        return strokes * np.float32(rng.uniform(0.03, 0.09)) + grain * np.float32(0.015)
    return strokes * np.float32(0.015) + grain * np.float32(rng.uniform(0.03, 0.07))


def _faint_stains(px: int, rng: np.random.Generator) -> FloatImage:
    """Factors of faint patches left by rinsing, too weak for contamination; close to one."""
    depth = np.float32(rng.uniform(0.0, 0.06))
    patches: FloatImage = 1 - depth * smooth_step(smooth_noise(px, 7, rng), 1.0, 1.15)
    return patches


def _foil_coverage(lid: _LidPosition, rng: np.random.Generator) -> FloatImage:
    """Coverage of each pixel by the foil, 0 to 1: the disc in the ring, cut by up to two straight edges."""
    metal = np.clip((1 - lid.rho) * np.float32(lid.radius) + np.float32(0.5), 0, 1)
    for _ in range(int(rng.choice([0, 1, 2], p=[0.45, 0.35, 0.2]))):
        direction, reach = float(rng.uniform(-np.pi, np.pi)), float(rng.uniform(0.7, 0.95))
        distance = (lid.rho * np.cos(lid.phi - direction) - reach) * lid.radius
        metal = metal * np.clip(0.5 - distance / rng.uniform(0.6, 4.0), 0, 1)
    return np.asarray(metal, dtype=np.float32)


def _in_holder(
    foil: FloatImage, metal: FloatImage, lid: _LidPosition, rng: np.random.Generator
) -> FloatImage:
    """Compose the foil with the grey ring around it and the dark holder."""
    ring = float(rng.uniform(1.05, 1.1))
    soft = 1.5 / lid.radius
    grey = np.float32(rng.uniform(3, 12)) + np.float32(12) * (
        1 - smooth_step(lid.rho, ring + 0.12, ring + 0.16)
    )
    on_ring = smooth_step(lid.rho, 1.0 - soft, 1.0 + soft) * (
        1 - smooth_step(lid.rho, ring - soft, ring + soft)
    )
    grey = grey + (np.float32(rng.uniform(95, 160)) * (1 + 0.1 * np.cos(lid.phi - 1)) - grey) * on_ring
    composed: FloatImage = grey + (foil - grey) * metal
    return composed
