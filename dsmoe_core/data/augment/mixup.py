"""MixUp augmentation: two images blended into one."""

from __future__ import annotations

import numpy as np

from dsmoe_core.data.augment.sample import Sample


def mixup(first: Sample, second: Sample, *, share: float) -> Sample:
    """Blend the pixels of two images and keep the boxes of both (Zhang et al. 2019).

    Args:
        share: weight of the first image, 0 to 1.
    """
    pixels = first.pixels * np.float32(share) + second.pixels * np.float32(1 - share)
    return Sample(
        pixels.astype(np.uint8),
        np.concatenate([first.boxes, second.boxes]),
        np.concatenate([first.labels, second.labels]),
        (*first.applied, f"mixed {share:.0%}"),
    )
