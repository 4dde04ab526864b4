"""The intensity scale of a set: which value of its images with more than 8 bits is white.

It is one value for all images of a set, so that equal scenes stay equal. By default it is the largest value
of the smallest usual bit depth that covers all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median_low
from typing import NamedTuple

import numpy as np

from dsmoe_core.data.deep_pixels import DeepPixels, colour_values

DEPTHS = (8, 10, 12, 14, 16)
"""Bit depths that cameras use; white is the largest value of one of them."""
_MAXIMA = tuple((1 << bits) - 1 for bits in DEPTHS)
_USUAL_SHARE = 0.999


class IntensityRange(NamedTuple):
    """The range of the values of one image.

    Attributes:
        brightest: the largest value in the image.
        stated: the largest possible value by the file's own header; 0 if it states none.
        usual: value that 99.9 % of the pixels do not exceed.
    """

    brightest: int
    stated: int
    usual: int

    @classmethod
    def of(cls, pixels: DeepPixels) -> IntensityRange:
        """The range of an image that was read."""
        values = colour_values(pixels).ravel()
        if not values.size:
            return cls(0, 0, 0)
        place = min(int(_USUAL_SHARE * values.size), values.size - 1)
        usual = int(np.partition(values, place)[place])
        return cls(int(values.max()), pixels.stated_max or 0, usual)


class IntensityScale(NamedTuple):
    """The scale of the images with more than 8 bits of a set.

    Attributes:
        intensity_max: value that becomes white; larger ones are clipped to it.
        images: number of images that it holds for.
        largest: largest value in them.
        given: the value was given, not chosen from the images.
        narrower: the largest value of a smaller bit depth that holds nearly all pixels of most images; None:
            there is none.
    """

    intensity_max: int
    images: int
    largest: int
    given: bool = False
    narrower: int | None = None

    @classmethod
    def of(cls, ranges: Sequence[IntensityRange], intensity_max: int | None = None) -> IntensityScale | None:
        """The scale of images with these ranges; None if there are none.

        Args:
            intensity_max: the value to use; None: choose it.
        """
        if not ranges:
            return None
        largest = max(r.brightest for r in ranges)
        chosen = intensity_max or depth_max(max(largest, *(r.stated for r in ranges)))
        usual = depth_max(median_low(r.usual for r in ranges))
        return cls(chosen, len(ranges), largest, intensity_max is not None, usual if usual < chosen else None)

    def __str__(self) -> str:
        is_depth = self.intensity_max & (self.intensity_max + 1) == 0
        bits = f" ({self.intensity_max.bit_length()} bits)" if is_depth else ""
        text = f"{self.images} images of more than 8 bits: value {self.intensity_max}{bits} is white in all"
        if self.largest > self.intensity_max:
            text += f", larger ones up to {self.largest} are clipped"
        if self.narrower is not None and not self.given:
            text += (
                f"; most of them are dark, with 99.9 % of their pixels at {self.narrower} or less: "
                f"--intensity-max {self.narrower} makes them brighter"
            )
        return text


def depth_max(value: int) -> int:
    """The largest value of the smallest usual bit depth that has this value."""
    return next((maximum for maximum in _MAXIMA if value <= maximum), _MAXIMA[-1])
