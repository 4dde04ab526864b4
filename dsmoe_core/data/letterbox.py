"""Letter-boxing: an image of any size into the network's square, and boxes there and back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from dsmoe_core.config import ModelConfig, Preprocessing
from dsmoe_core.schema import Box, ImageRecord

GREY = 114
DEFAULT_PREPROCESSING = Preprocessing()


@dataclass(frozen=True, slots=True)
class Letterbox:
    """Scale and padding that bring one image into a square of ``side`` pixels."""

    side: int
    scale: float
    left: int
    top: int

    @classmethod
    def of(cls, width: int, height: int, side: int) -> Letterbox:
        """For an image of this size, centred."""
        scale = side / max(width, height)
        return cls(side, scale, (side - round(width * scale)) // 2, (side - round(height * scale)) // 2)

    def image_area(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right, bottom of what is no padding, for the image of this size."""
        right, bottom = self.left + round(width * self.scale), self.top + round(height * self.scale)
        return (self.left, self.top, right, bottom)

    def to_square(self, boxes: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, "m 4"]:
        """Boxes from image pixels to the square's."""
        return boxes * np.float32(self.scale) + np.array([self.left, self.top] * 2, dtype=boxes.dtype)

    def to_image(self, boxes: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, "m 4"]:
        """Boxes from the square's pixels to image pixels, not clipped."""
        return (boxes - np.array([self.left, self.top] * 2, dtype=boxes.dtype)) / np.float32(self.scale)


@dataclass(frozen=True, slots=True)
class LetterboxReader:
    """Reads images as one model is shown them: letter-boxed to RGB, padded with grey.

    Attributes:
        side: of the square, in pixels.
    """

    side: int
    preprocessing: Preprocessing = DEFAULT_PREPROCESSING

    @classmethod
    def for_model(cls, model: ModelConfig) -> LetterboxReader:
        """As this model wants them."""
        return cls(model.image_px, model.preprocessing)

    def read(self, image: ImageRecord) -> UInt8[np.ndarray, "side side 3"]:
        """The image's square; reduced by area by default, so that no thin defect vanishes."""
        box = Letterbox.of(image.width, image.height, self.side)
        left, top, right, bottom = box.image_area(image.width, image.height)
        by_area = box.scale < 1 and self.preprocessing.resampling == "area"
        kind = Image.Resampling.BOX if by_area else Image.Resampling.BILINEAR
        if image.region is not None:
            part = _whole(image.path, image.path.stat().st_mtime_ns).crop(image.region)
            small = part.resize((right - left, bottom - top), kind)
        else:
            with Image.open(image.path) as opened:
                if box.scale < 1:
                    opened.draft("RGB", (self.side, self.side))
                small = opened.convert("RGB").resize((right - left, bottom - top), kind)
        square = np.full((self.side, self.side, 3), GREY, dtype=np.uint8)
        square[top:bottom, left:right] = apply_gamma(np.asarray(small), self.preprocessing.gamma)
        return square


@lru_cache(maxsize=1)  # the tiles of an image are read one after the other
def _whole(path: Path, changed_ns: int) -> Image.Image:  # noqa: ARG001 - a changed file is another entry
    with Image.open(path) as image:
        return image.convert("RGB")


def apply_gamma(pixels: UInt8[np.ndarray, "h w 3"], gamma: float) -> UInt8[np.ndarray, "h w 3"]:
    """``s = c r^gamma`` with c = 1 and r the pixel's value as a share of white (the paper's preprocessing).

    Paper: gamma = 1.5, which spreads bright greys apart. Padding keeps its grey: it is none of the image.
    """
    if gamma == 1.0:
        return pixels
    curve = 255 * (np.arange(256) / 255) ** gamma
    return curve.round().astype(np.uint8)[pixels]


def box_corners(boxes: list[Box]) -> Float[np.ndarray, "m 4"]:
    """Boxes as rows of x1, y1, x2, y2."""
    return np.array([b.corners for b in boxes], dtype=np.float32).reshape(-1, 4)
