"""MixUp: two images laid over each other."""

from __future__ import annotations

import numpy as np

from dsmoe_core.data.augment.sample import Sample


def mixup(first: Sample, second: Sample, *, share: float) -> Sample:
    """MixUp for detection: pixels blended, boxes of both kept (Zhang et al. 2019)."""
    pixels = first.pixels * np.float32(share) + second.pixels * np.float32(1 - share)
    return Sample(
        pixels.astype(np.uint8),
        np.concatenate([first.boxes, second.boxes]),
        np.concatenate([first.labels, second.labels]),
        (*first.applied, f"mixed {share:.0%}"),
    )
