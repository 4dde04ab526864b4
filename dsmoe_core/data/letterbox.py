"""Letterboxing: scales and pads images of any size to the square network input, with their boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from dsmoe_core.config import ModelConfig, Preprocessing
from dsmoe_core.schema import Box, ImageRecord

GREY = 114
"""Grey level of the padding, 0 to 255, as in YOLO."""
DEFAULT_PREPROCESSING = Preprocessing()


@dataclass(frozen=True, slots=True)
class Letterbox:
    """Scale and padding that fit one image into a square.

    Attributes:
        side: of the square, in pixels.
        scale: pixels of the square per pixel of the image.
        left, top: padding in pixels of the square.
    """

    side: int
    scale: float
    left: int
    top: int

    @classmethod
    def of(cls, width: int, height: int, side: int) -> Letterbox:
        """The letterbox of an image of this size, centred in the square."""
        scale = side / max(width, height)
        return cls(side, scale, (side - round(width * scale)) // 2, (side - round(height * scale)) // 2)

    def image_area(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right, bottom of the part of the square that shows the image of this size."""
        right, bottom = self.left + round(width * self.scale), self.top + round(height * self.scale)
        return (self.left, self.top, right, bottom)

    def to_square(self, boxes: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, "m 4"]:
        """Boxes from image pixels to pixels of the square."""
        return boxes * np.float32(self.scale) + np.array([self.left, self.top] * 2, dtype=boxes.dtype)

    def to_image(self, boxes: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, "m 4"]:
        """Boxes from pixels of the square to image pixels, not clipped to the image."""
        return (boxes - np.array([self.left, self.top] * 2, dtype=boxes.dtype)) / np.float32(self.scale)


@dataclass(frozen=True, slots=True)
class LetterboxReader:
    """Reads image files as the input of one model: RGB, letterboxed, padded with grey.

    Attributes:
        side: of the square, in pixels.
    """

    side: int
    preprocessing: Preprocessing = DEFAULT_PREPROCESSING

    @classmethod
    def for_model(cls, model: ModelConfig) -> LetterboxReader:
        """The reader with the input size and the preprocessing of a model."""
        return cls(model.image_px, model.preprocessing)

    def read(self, image: ImageRecord) -> UInt8[np.ndarray, "side side 3"]:
        """Read one image. By default it is reduced by area averaging, so that thin defects do not vanish."""
        box = Letterbox.of(image.width, image.height, self.side)
        left, top, right, bottom = box.image_area(image.width, image.height)
        by_area = box.scale < 1 and self.preprocessing.resampling == "area"
        resampling = Image.Resampling.BOX if by_area else Image.Resampling.BILINEAR
        if image.region is not None:
            part = _full_image(image.path, image.path.stat().st_mtime_ns).crop(image.region)
            resized = part.resize((right - left, bottom - top), resampling)
        else:
            with Image.open(image.path) as opened:
                if box.scale < 1:
                    opened.draft("RGB", (self.side, self.side))
                resized = opened.convert("RGB").resize((right - left, bottom - top), resampling)
        square = np.full((self.side, self.side, 3), GREY, dtype=np.uint8)
        square[top:bottom, left:right] = apply_gamma(np.asarray(resized), self.preprocessing.gamma)
        return square


@lru_cache(maxsize=1)  # the tiles of an image are read one after another
def _full_image(path: Path, changed_ns: int) -> Image.Image:  # noqa: ARG001 - part of the cache key
    with Image.open(path) as image:
        return image.convert("RGB")


def apply_gamma(pixels: UInt8[np.ndarray, "h w 3"], gamma: float) -> UInt8[np.ndarray, "h w 3"]:
    """Power-law transform ``s = c r^gamma`` with c = 1 and r = pixel value / 255 (the paper's preprocessing).

    The paper uses gamma = 1.5, which increases the contrast between bright greys. Padding is not transformed.
    """
    if gamma == 1.0:
        return pixels
    curve = 255 * (np.arange(256) / 255) ** gamma
    return curve.round().astype(np.uint8)[pixels]


def box_corners(boxes: Sequence[Box]) -> Float[np.ndarray, "m 4"]:
    """Boxes as rows of x1, y1, x2, y2."""
    return np.array([b.corners for b in boxes], dtype=np.float32).reshape(-1, 4)
