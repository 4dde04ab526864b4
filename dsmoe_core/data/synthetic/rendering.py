"""Rendering functions of all generators: noise, illumination, antialiased shapes and bounding boxes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from dsmoe_core.schema import Annotation, Box

FloatImage = NDArray[np.float32]
"""Grey levels or colours of pixels, 0 to 255, or an opacity of 0 to 1."""
Colour = tuple[int, int, int]
Point = tuple[float, float]


class SyntheticImage(NamedTuple):
    """A rendered image (8-bit RGB, square) and its annotations."""

    image: Image.Image
    annotations: tuple[Annotation, ...]


def smooth_noise(px: int, cells: float, rng: np.random.Generator) -> FloatImage:
    """Smooth noise of mean zero, (px, px).

    Args:
        cells: number of independent values along each side, between which the noise is interpolated.
    """
    side = max(round(cells), 2)
    coarse = Image.fromarray(rng.normal(0, 1, (side, side)).astype(np.float32))
    return np.asarray(coarse.resize((px, px), Image.Resampling.BICUBIC), dtype=np.float32)


def illumination(px: int, rng: np.random.Generator) -> FloatImage:
    """Factors of uneven lighting, (px, px, 1), close to one."""
    axis = np.linspace(-1, 1, px, dtype=np.float32)
    gain, tilt_x, tilt_y = rng.uniform(0.88, 1.12), rng.uniform(-0.12, 0.12), rng.uniform(-0.12, 0.12)
    gains = gain + tilt_x * axis[None, :] + tilt_y * axis[:, None]
    factors: FloatImage = gains[..., None].astype(np.float32)
    return factors


def blend(base: FloatImage, colour: Colour, opacity: FloatImage) -> FloatImage:
    """Blend a colour over an image, (px, px, 3)."""
    blended: FloatImage = base + (np.array(colour, np.float32) - base) * opacity
    return blended


def simulate_camera(pixels: FloatImage, rng: np.random.Generator) -> Image.Image:
    """Add sensor noise, clip to 8 bit and blur slightly; (px, px, 3) to an RGB image."""
    px = pixels.shape[0]
    noisy = pixels + rng.normal(0, float(rng.uniform(1.5, 5)), (px, px, 1)).astype(np.float32)
    image = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
    return image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 0.8)) * px / 320))


def pixel_grid(px: int, fine: int = 1) -> tuple[FloatImage, FloatImage]:
    """x and y of all sample centres in image pixels, (px * fine, px * fine) each.

    Args:
        fine: samples per image pixel along each axis.
    """
    axis = (np.arange(px * fine, dtype=np.float32) + np.float32(0.5)) / np.float32(fine)
    x, y = np.meshgrid(axis, axis)
    return x, y


def smooth_step(values: FloatImage, low: float, high: float) -> FloatImage:
    """Smoothstep: 0 below ``low``, 1 above ``high``, cubic in between."""
    t = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
    step: FloatImage = t * t * (3 - 2 * t)
    return step


def fill_polygons(px: int, shapes: list[list[Point]], softness: float = 0.0, fine: int = 3) -> FloatImage:
    """Coverage of each pixel by polygons, (px, px), 0 to 1; blurred by ``softness`` pixels."""
    image = Image.new("L", (px * fine, px * fine), 0)
    pen = ImageDraw.Draw(image)
    for shape in shapes:
        pen.polygon([(x * fine, y * fine) for x, y in shape], fill=255)
    image = image.reduce(fine)
    if softness:
        image = image.filter(ImageFilter.GaussianBlur(softness))
    return np.asarray(image, dtype=np.float32) / np.float32(255)


def draw_lines(px: int, lines: list[list[Point]], widths: list[float], opacities: list[float]) -> FloatImage:
    """Coverage of each pixel by lines, (px, px), 0 to 1.

    Args:
        lines: points of each line, in pixels.
        widths: of each line, in pixels.
        opacities: of each line, 0 to 1.
    """
    fine = 4
    image = Image.new("L", (px * fine, px * fine), 0)
    pen = ImageDraw.Draw(image)
    for line, width, opacity in zip(lines, widths, opacities, strict=True):
        points = [(x * fine, y * fine) for x, y in line]
        pen.line(points, fill=round(255 * opacity), width=max(round(width * fine), 1), joint="curve")
    return np.asarray(image.reduce(fine), dtype=np.float32) / np.float32(255)


def mask_box(mask: NDArray[np.bool_], margin: float, fine: int = 1) -> Box | None:
    """The bounding box of a mask, clipped to the image; None for an empty mask.

    Args:
        mask: square, with ``fine`` samples per image pixel along each axis.
        margin: added on all sides, in image pixels.
    """
    rows, columns = (np.flatnonzero(mask.max(axis)) for axis in (1, 0))
    if not len(rows):
        return None
    side = mask.shape[0] / fine
    return Box(
        max(float(columns[0]) / fine - margin, 0.0),
        max(float(rows[0]) / fine - margin, 0.0),
        min(float(columns[-1] + 1) / fine + margin, side),
        min(float(rows[-1] + 1) / fine + margin, side),
    )


def boxes_overlap(a: Box, b: Box) -> bool:
    """Whether two boxes have a common interior point."""
    return a.x1 < b.x2 and b.x1 < a.x2 and a.y1 < b.y2 and b.y1 < a.y2
