"""Chooses the network's input size, tiles and the head's strides from the sizes of images and defects.

- The input is not larger than the median image: small images get an input of their own size.
- Thin defects need pixels: the input is raised until at most a quarter of the defects is below
  ``MIN_DEFECT_PX`` wide or high, up to twice the size of the preset. Where that is not enough, images are cut
  into tiles.
- Of elongated images half of a square would be padding, so they are cut into tiles of their shorter side, or
  into smaller ones where a quarter of the defects would be below ``MIN_DEFECT_PX`` otherwise.
- Where no defects are small, the head has no level at stride 4, which only small defects need.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from PIL import Image

from dsmoe_core.config import ModelConfig, Tiles
from dsmoe_core.data.image_formats import open_image
from dsmoe_core.schema import Box

MULTIPLE = 32
MIN_DEFECT_PX = 6.0
"""Shorter side that a thin defect should have in the input, in pixels."""
LOST_DEFECT_PX = 3.0
"""Shorter side, in pixels of the largest input, below which images are cut into tiles."""
ELONGATED = 2.0
"""Ratio of the sides from which images are cut into tiles: half of a square would be padding."""
MIN_TILE_PX = 64
SMALL_PX = 16.0
"""Two cells of stride 8, in pixels of the input: a defect whose shorter side is below this needs stride 4."""
MIN_DEFECTS = 20
"""Annotated defects from which the head's strides are chosen."""
SAMPLE = 200
"""Images whose size is read."""


class InputSize(NamedTuple):
    """The input of a network, and why it was chosen.

    Attributes:
        image_px: side of the square in pixels.
        tiles: how images are cut; None: not at all.
        reason: one line for the terminal.
    """

    image_px: int
    tiles: Tiles | None
    reason: str

    def apply(self, model: ModelConfig) -> ModelConfig:
        """The network with this input."""
        return model.model_copy(update={"image_px": self.image_px, "tiles": self.tiles})


def choose_input_size(
    sizes: Sequence[tuple[int, int]], defects: Sequence[float], preset: ModelConfig
) -> InputSize:
    """Choose the input from the images.

    Args:
        sizes: width and height of images in pixels, at least one.
        defects: shorter side of each annotated box as a fraction of its image's longer side; may be empty.
        preset: has the largest input that is used without a reason.
    """
    long_side, short_side = (median(pick(size) for size in sizes) for pick in (max, min))
    shape = f"images of {long_side:.0f} x {short_side:.0f} px (median)"
    thin = float(np.quantile(defects, 0.25)) if defects else 1.0
    measured = f"a quarter of the defects is at most {thin * long_side:.1f} px wide or high in {shape}"
    if long_side >= ELONGATED * short_side and short_side >= MIN_TILE_PX:
        px, whole = min(preset.image_px, _rounded_up(short_side)), round(short_side)
        side = min(whole, _tile_side(px, thin * long_side))
        if side < whole:
            return InputSize(px, Tiles(px=side), f"{measured}, which are elongated: tiles of {side} px")
        reason = f"{shape} are elongated: square tiles of their shorter side instead of padding"
        return InputSize(px, Tiles(px=side), reason)
    largest = _rounded_up(long_side)
    px = min(preset.image_px, largest)
    usual = f"{shape} are not enlarged" if px == largest else f"{shape} are reduced to the preset's input"
    if thin * px >= MIN_DEFECT_PX:
        return InputSize(px, None, usual)
    raised = min(_rounded_up(MIN_DEFECT_PX / thin), 2 * preset.image_px, largest)
    if thin * raised >= LOST_DEFECT_PX or raised >= largest:
        return InputSize(raised, None, f"{measured}, {thin * raised:.1f} px in this input")
    side = _tile_side(preset.image_px, thin * long_side)
    return InputSize(preset.image_px, Tiles(px=side), f"{measured}: tiles of {side} px")


def _tile_side(image_px: int, defect_px: float) -> int:
    """Side of tiles, in image pixels, in which a defect has ``MIN_DEFECT_PX`` in the input.

    Tiles are not enlarged more than twice.

    Args:
        image_px: side of the input.
        defect_px: shorter side of the defect in the image.
    """
    return max(MIN_TILE_PX, image_px // 2, round(image_px * defect_px / MIN_DEFECT_PX))


def choose_head_strides(
    sizes: Sequence[tuple[int, int]], defects: Sequence[float], model: ModelConfig
) -> tuple[int, ...]:
    """The strides of the head: those of the model, without 4 if at most a twentieth of the defects needs it.

    With fewer than ``MIN_DEFECTS`` defects they stay as they are.

    Args:
        sizes: width and height of images in pixels, at least one.
        defects: as for ``choose_input_size``.
        model: with the input size and tiles that were chosen.
    """
    if len(defects) < MIN_DEFECTS:
        return model.head_strides
    whole = median(max(size) for size in sizes)
    scale = model.image_px * (1.0 if model.tiles is None else max(1.0, whole / model.tiles.px))
    if scale * float(np.quantile(defects, 0.05)) < SMALL_PX:
        return model.head_strides
    return model.with_tiny_head(False).head_strides


def _rounded_up(side: float) -> int:
    """The next multiple of the network's largest stride, at least the smallest input."""
    return max(64, int(-(-side // MULTIPLE) * MULTIPLE))


def image_sizes(files: Sequence[Path]) -> list[tuple[int, int]]:
    """Width and height of evenly chosen files, of those that can be read; pixels are not decoded."""
    sizes = []
    for file in files[:: max(1, len(files) // SAMPLE)]:
        with suppress(OSError, ValueError, Image.DecompressionBombError), warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with open_image(file)[1] as image:
                sizes.append(image.size)
    return sizes


def relative_thickness(boxes: Iterable[tuple[Box, int, int]]) -> list[float]:
    """Shorter side of boxes, as a fraction of the longer side of their images.

    Args:
        boxes: each with width and height of its image.
    """
    return [
        min(box.width, box.height) / max(width, height)
        for box, width, height in boxes
        if min(box.width, box.height) > 0 and max(width, height) > 0
    ]
