"""A letterboxed image with its boxes, as the augmentations take and return it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

MIN_BOX_PX = 2.0
"""Boxes that augmentation clips to a shorter side than this are dropped."""


class Sample(NamedTuple):
    """One letterboxed image.

    Attributes:
        pixels: RGB, 0 to 255; read-only, since they may belong to a cache.
        boxes: x1, y1, x2, y2 in pixels of the square.
        labels: class index of each box.
        applied: the augmentations applied so far, as text for ``dsmoe data preview``.
    """

    pixels: UInt8[np.ndarray, "side side 3"]
    boxes: Float[np.ndarray, "m 4"]
    labels: Int[np.ndarray, " m"]
    applied: tuple[str, ...] = ()

    def with_pixels(self, augmentation: str, pixels: UInt8[np.ndarray, "side side 3"]) -> Sample:
        """The same boxes on changed pixels.

        Args:
            augmentation: text that is added to ``applied``.
        """
        return self._replace(pixels=pixels, applied=(*self.applied, augmentation))
