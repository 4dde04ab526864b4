"""Letter-boxing: a picture of any size into the network's square, and boxes there and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from dsmoe_core.schema import Box, Picture

GREY = 114


@dataclass(frozen=True, slots=True)
class LetterBox:
    """Scale and padding that bring one picture into a square of ``side`` pixels."""

    side: int
    scale: float
    left: int
    top: int

    @classmethod
    def of(cls, width: int, height: int, side: int) -> LetterBox:
        """For a picture of this size, centred."""
        scale = side / max(width, height)
        return cls(side, scale, (side - round(width * scale)) // 2, (side - round(height * scale)) // 2)

    def into(self, boxes: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, "m 4"]:
        """Boxes from picture pixels to the square's."""
        return boxes * np.float32(self.scale) + np.array([self.left, self.top] * 2, dtype=boxes.dtype)

    def back(self, boxes: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, "m 4"]:
        """Boxes from the square's pixels to picture pixels, not clipped."""
        return (boxes - np.array([self.left, self.top] * 2, dtype=boxes.dtype)) / np.float32(self.scale)


def read_square(picture: Picture, side: int) -> UInt8[np.ndarray, "side side 3"]:
    """The picture letter-boxed to RGB, padded with grey; reduced by area, so that no thin defect vanishes."""
    box = LetterBox.of(picture.width, picture.height, side)
    size = (round(picture.width * box.scale), round(picture.height * box.scale))
    with Image.open(picture.path) as image:
        if box.scale < 1:
            image.draft("RGB", (side, side))
        small = image.convert("RGB").resize(
            size, Image.Resampling.BOX if box.scale < 1 else Image.Resampling.BILINEAR
        )
    square = np.full((side, side, 3), GREY, dtype=np.uint8)
    square[box.top : box.top + size[1], box.left : box.left + size[0]] = np.asarray(small)
    return square


def corners(boxes: list[Box]) -> Float[np.ndarray, "m 4"]:
    """Boxes as rows of x1, y1, x2, y2."""
    return np.array([b.corners for b in boxes], dtype=np.float32).reshape(-1, 4)
