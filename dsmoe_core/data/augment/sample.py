"""A letter-boxed image on its way to the network."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

MIN_BOX_PX = 2.0
"""A box that augmentation cut below this side is dropped."""


class Sample(NamedTuple):
    """One letter-boxed image with its boxes in the square's pixels.

    Attributes:
        pixels: never written to; they may lie in a cache.
        applied: what was applied to it so far, in words for ``dsmoe data preview``.
    """

    pixels: UInt8[np.ndarray, "side side 3"]
    boxes: Float[np.ndarray, "m 4"]
    labels: Int[np.ndarray, " m"]
    applied: tuple[str, ...] = ()

    def with_pixels(self, what: str, pixels: UInt8[np.ndarray, "side side 3"]) -> Sample:
        """The same boxes on other pixels."""
        return self._replace(pixels=pixels, applied=(*self.applied, what))
