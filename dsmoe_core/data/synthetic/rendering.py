"""What all kinds of drawn images share: noise, light, soft shapes, and the box of what a defect changed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from dsmoe_core.schema import Annotation, Box

FloatImage = NDArray[np.float32]
"""Brightness or colour of pixels, 0 to 255, or a share of 0 to 1."""
Colour = tuple[int, int, int]
Point = tuple[float, float]


class SyntheticImage(NamedTuple):
    """A drawn image (8-bit RGB, square) and what is on it."""

    image: Image.Image
    annotations: tuple[Annotation, ...]


def smooth_noise(px: int, cells: float, rng: np.random.Generator) -> FloatImage:
    """Smooth noise about zero with roughly this many hills and dales a side, (px, px)."""
    side = max(round(cells), 2)
    coarse = Image.fromarray(rng.normal(0, 1, (side, side)).astype(np.float32))
    return np.asarray(coarse.resize((px, px), Image.Resampling.BICUBIC), dtype=np.float32)


def illumination(px: int, rng: np.random.Generator) -> FloatImage:
    """Uneven lighting, (px, px, 1), about one."""
    along = np.linspace(-1, 1, px, dtype=np.float32)
    gain, tilt_x, tilt_y = rng.uniform(0.88, 1.12), rng.uniform(-0.12, 0.12), rng.uniform(-0.12, 0.12)
    gains = gain + tilt_x * along[None, :] + tilt_y * along[:, None]
    lit: FloatImage = gains[..., None].astype(np.float32)
    return lit


def blend(below: FloatImage, colour: Colour, share: FloatImage) -> FloatImage:
    """A colour laid over an image where ``share`` is, (px, px, 3)."""
    blended: FloatImage = below + (np.array(colour, np.float32) - below) * share
    return blended


def simulate_camera(pixels: FloatImage, rng: np.random.Generator) -> Image.Image:
    """As a camera sees it: with noise, clipped to 8 bit, a little out of focus; (px, px, 3) to RGB."""
    px = pixels.shape[0]
    noisy = pixels + rng.normal(0, float(rng.uniform(1.5, 5)), (px, px, 1)).astype(np.float32)
    image = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
    return image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 0.8)) * px / 320))


def pixel_grid(px: int, fine: int = 1) -> tuple[FloatImage, FloatImage]:
    """x and y of all pixel centres in image pixels, (px * fine, px * fine) each."""
    along = (np.arange(px * fine, dtype=np.float32) + np.float32(0.5)) / np.float32(fine)
    x, y = np.meshgrid(along, along)
    return x, y


def smooth_step(values: FloatImage, low: float, high: float) -> FloatImage:
    """0 below ``low``, 1 above ``high``, an S between."""
    share = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
    step: FloatImage = share * share * (3 - 2 * share)
    return step


def fill_polygons(px: int, shapes: list[list[Point]], softness: float = 0.0, fine: int = 3) -> FloatImage:
    """How much of every pixel these polygons cover, (px, px), 0 to 1; blurred by ``softness`` pixels."""
    image = Image.new("L", (px * fine, px * fine), 0)
    pen = ImageDraw.Draw(image)
    for shape in shapes:
        pen.polygon([(x * fine, y * fine) for x, y in shape], fill=255)
    image = image.reduce(fine)
    if softness:
        image = image.filter(ImageFilter.GaussianBlur(softness))
    return np.asarray(image, dtype=np.float32) / np.float32(255)


def draw_lines(px: int, lines: list[list[Point]], widths: list[float], shares: list[float]) -> FloatImage:
    """How much of every pixel these lines cover, (px, px), 0 to 1; the shares say how strong each is."""
    fine = 4
    image = Image.new("L", (px * fine, px * fine), 0)
    pen = ImageDraw.Draw(image)
    for line, width, share in zip(lines, widths, shares, strict=True):
        points = [(x * fine, y * fine) for x, y in line]
        pen.line(points, fill=round(255 * share), width=max(round(width * fine), 1), joint="curve")
    return np.asarray(image.reduce(fine), dtype=np.float32) / np.float32(255)


def mask_box(changed: NDArray[np.bool_], margin: float, fine: int = 1) -> Box | None:
    """The box of all that is true, with a margin in image pixels, cut at the edges; None: nothing is."""
    rows, columns = (np.flatnonzero(changed.max(axis)) for axis in (1, 0))
    if not len(rows):
        return None
    side = changed.shape[0] / fine
    return Box(
        max(float(columns[0]) / fine - margin, 0.0),
        max(float(rows[0]) / fine - margin, 0.0),
        min(float(columns[-1] + 1) / fine + margin, side),
        min(float(rows[-1] + 1) / fine + margin, side),
    )


def boxes_overlap(a: Box, b: Box) -> bool:
    """Whether two boxes share a point inside both."""
    return a.x1 < b.x2 and b.x1 < a.x2 and a.y1 < b.y2 and b.y1 < a.y2
