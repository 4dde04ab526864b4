"""Copy-paste augmentation: defects of one image pasted at free places of another (Ghiasi et al. 2021)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from dsmoe_core.data.augment.sample import Sample

MAX_COVERED = 0.1
"""Maximum overlap of a patch with any other box, as a share of the smaller of the two."""
MAX_SHARE = 0.5
"""Only patches up to this share of the target's sides are pasted; larger ones would find no free place."""
_BORDER = 0.15  # width of the soft border, as a share of the box's shorter side
_TRIES = 30

Area = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels of the part of a square that is not padding."""


class _Patch(NamedTuple):
    """A defect that was cut out with a soft border.

    Attributes:
        weight: opacity, 0 to 1.
        corner: x and y of the top left corner in the source.
    """

    pixels: Float[np.ndarray, "h w 3"]
    weight: Float[np.ndarray, "h w 1"]
    corner: Int[np.ndarray, " 2"]


def paste_defects(
    sample: Sample,
    area: Area,
    source: Sample,
    source_area: Area,
    *,
    max_pasted: int,
    rng: np.random.Generator,
) -> Sample:
    """Paste up to ``max_pasted`` defects of ``source`` at free places of ``sample``, moved by whole pixels.

    Defects that overlap another one are left out, since a part of the other would be copied without a box.

    Args:
        area, source_area: the parts of the two squares that are not padding; nothing is pasted on padding.
        max_pasted: maximum number of defects.
        rng: selects defects and places.
    """
    pixels = sample.pixels.astype(np.float32)
    boxes, labels = sample.boxes, sample.labels
    for row in rng.permutation(len(source.boxes))[:max_pasted]:
        patch = _cut(source, source_area, int(row))
        place = None if patch is None else _free_place(patch, boxes, area, rng)
        if patch is None or place is None:
            continue
        height, width = patch.pixels.shape[:2]
        x, y = place
        below = pixels[y : y + height, x : x + width]
        pixels[y : y + height, x : x + width] = below + patch.weight * (patch.pixels - below)
        moved = source.boxes[row] + np.tile(place - patch.corner, 2).astype(np.float32)
        boxes = np.concatenate([boxes, moved[None]])
        labels = np.append(labels, source.labels[row])
    if len(boxes) == len(sample.boxes):
        return sample
    applied = (*sample.applied, f"{len(boxes) - len(sample.boxes)} pasted")
    return Sample(pixels.round().astype(np.uint8), boxes, labels, applied)


def _cut(source: Sample, area: Area, row: int) -> _Patch | None:
    """Cut the defect of a row of ``source.boxes`` out; None if another box overlaps it."""
    box = source.boxes[row].astype(np.float64)
    border = max(1, round(_BORDER * float((box[2:] - box[:2]).min())))
    inner = np.concatenate([np.floor(box[:2]), np.ceil(box[2:])]).astype(np.int64)
    low = np.maximum(inner[:2] - border, area[:2])
    high = np.minimum(inner[2:] + border, area[2:])
    others = np.delete(source.boxes, row, axis=0)
    if (high <= low).any() or _overlaps(np.concatenate([low, high]), others).max(initial=0.0) > MAX_COVERED:
        return None
    ramps = []
    for axis in (1, 0):
        position = np.arange(low[axis], high[axis])
        outside = np.maximum(np.maximum(inner[axis] - position, position - inner[axis + 2] + 1), 0)
        ramps.append(1 - outside / (border + 1))
    weight = np.minimum(ramps[0][:, None], ramps[1][None, :]).astype(np.float32)
    pixels = source.pixels[low[1] : high[1], low[0] : high[0]].astype(np.float32)
    return _Patch(pixels, weight[..., None], low)


def _free_place(
    patch: _Patch, boxes: Float[np.ndarray, "m 4"], area: Area, rng: np.random.Generator
) -> Int[np.ndarray, " 2"] | None:
    """Top left corner of a random place in the area that overlaps no box too much; None if none was found."""
    size = np.array(patch.pixels.shape[1::-1])
    area_size = np.array(area[2:]) - np.array(area[:2])
    if (size > MAX_SHARE * area_size).any():
        return None
    for _ in range(_TRIES):
        corner = np.array(area[:2]) + rng.integers(0, area_size - size + 1)
        if _overlaps(np.concatenate([corner, corner + size]), boxes).max(initial=0.0) <= MAX_COVERED:
            return corner
    return None


def _overlaps(rectangle: Int[np.ndarray, " 4"], boxes: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, " m"]:
    """Intersection of a rectangle and each box, as a share of the smaller area of the two."""
    low, high = np.maximum(boxes[:, :2], rectangle[:2]), np.minimum(boxes[:, 2:], rectangle[2:])
    common = np.maximum(high - low, 0).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    own = float((rectangle[2:] - rectangle[:2]).prod())
    return common / np.maximum(np.minimum(areas, own), 1e-6)
