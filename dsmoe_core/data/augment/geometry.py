"""Geometric augmentations: flip, rotation by 90 degrees, zoom and shift."""

from __future__ import annotations

import numpy as np

from dsmoe_core.data.augment.sample import MIN_BOX_PX, Sample
from dsmoe_core.data.letterbox import GREY


def flip_and_rotate(sample: Sample, *, quarters: int, mirrored: bool) -> Sample:
    """Mirror left to right, then rotate counter-clockwise.

    Args:
        quarters: number of rotations by 90 degrees, 0 to 3.
        mirrored: whether to mirror.
    """
    pixels, boxes, side = sample.pixels, sample.boxes, sample.pixels.shape[0]
    applied = sample.applied
    if mirrored:
        pixels = pixels[:, ::-1]
        boxes = np.stack([side - boxes[:, 2], boxes[:, 1], side - boxes[:, 0], boxes[:, 3]], axis=1)
        applied = (*applied, "mirrored")
    for _ in range(quarters):
        boxes = np.stack([boxes[:, 1], side - boxes[:, 2], boxes[:, 3], side - boxes[:, 0]], axis=1)
    if quarters:
        applied = (*applied, f"turned {90 * quarters}")
    return sample._replace(
        pixels=np.ascontiguousarray(np.rot90(pixels, quarters)), boxes=boxes, applied=applied
    )


def zoom_and_shift(sample: Sample, *, scale: float, dx: float, dy: float) -> Sample:
    """Zoom about the centre, then shift.

    Boxes are clipped to the square. Those that lose half of their area or become narrower than MIN_BOX_PX are
    dropped.

    Args:
        scale: zoom factor; above 1 enlarges.
        dx, dy: shift as a share of the side.
    """
    from PIL import Image

    side = sample.pixels.shape[0]
    left = side / 2 - side / 2 / scale - dx * side
    top = side / 2 - side / 2 / scale - dy * side
    image = Image.fromarray(sample.pixels).transform(
        (side, side),
        Image.Transform.AFFINE,
        (1 / scale, 0, left, 0, 1 / scale, top),
        resample=Image.Resampling.BILINEAR,
        fillcolor=(GREY, GREY, GREY),
    )
    moved = (sample.boxes - np.array([left, top] * 2, dtype=np.float32)) * np.float32(scale)
    clipped = moved.clip(0, side)
    sizes = clipped[:, 2:] - clipped[:, :2]
    area = np.maximum((moved[:, 2:] - moved[:, :2]).prod(1), 1e-6)
    kept = (sizes.min(1, initial=np.inf) >= MIN_BOX_PX) & (sizes.prod(1) / area > 0.5)
    applied = (*sample.applied, f"zoomed {scale:.2f}")
    return Sample(np.asarray(image), clipped[kept], sample.labels[kept], applied)
