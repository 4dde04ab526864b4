"""Compares the pixels of two images, to recognise the same shot after a change of format or brightness."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageFilter

from dsmoe_core.data.letterbox import LetterboxReader
from dsmoe_core.schema import ImageRecord

SIDE_PX = 512
BLUR_PX = 1.5
"""Radius of the box blur before the comparison; it removes noise and traces of JPEG compression."""
MAX_DIFFERENCE = 7.0
"""Largest difference of grey values, of 255, at any position of two images that show the same."""
KEPT_IMAGES = 64


class PixelComparison:
    """Compares images as blurred grey values, letterboxed to 512 px; the last ones stay in memory."""

    def __init__(self) -> None:
        self._reader = LetterboxReader(SIDE_PX)
        self._grey = lru_cache(KEPT_IMAGES)(self._read)

    def same(self, one: ImageRecord, other: ImageRecord) -> bool:
        """Whether two images differ by brightness, contrast, noise or compression at most.

        A shift by one pixel is a difference, and so is a defect of a few pixels.

        Raises:
            OSError: a file cannot be read.
        """
        if abs(one.width * other.height - other.width * one.height) > max(one.width, other.width):
            return False  # other proportions
        return max_difference(self._grey(one), self._grey(other)) <= MAX_DIFFERENCE

    def _read(self, image: ImageRecord) -> Float[np.ndarray, "side side"]:
        grey = Image.fromarray(self._reader.read(image)).convert("L")
        return np.asarray(grey.filter(ImageFilter.BoxBlur(BLUR_PX)), dtype=np.float32)


def max_difference(one: Float[np.ndarray, "side side"], other: Float[np.ndarray, "side side"]) -> float:
    """Largest difference of grey values, after a least-squares fit of brightness and contrast."""
    a, b = one - one.mean(), other - other.mean()
    gain = float((a * b).sum()) / max(float((b * b).sum()), 1e-6)
    return float(np.abs(a - gain * b).max())
