"""What the sizes of boxes say about head, side and tiles.

Our head is anchor-free: no anchor is built into it. K-means on the sizes is a summary of them, and what
decides is how many of the head's cells lie in a box, because these can learn it (``dsmoe_core/assign.py``).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from dsmoe_core.config import STRIDES
from dsmoe_core.schema import Annotation

MAX_OFF_GRID = 0.01
"""A stride is fine enough where at most this share of the boxes lies between its cells' centres."""
SMALLEST_TILE_PX = 64
_RESTARTS, _ROUNDS = 5, 100


class BoxSizes(NamedTuple):
    """Boxes in pixels of their images, with the longest side of each box's image."""

    boxes: Float[np.ndarray, "m 2"]
    longest: Float[np.ndarray, " m"]

    @classmethod
    def of(cls, images: Iterable[tuple[int, int, Sequence[Annotation]]]) -> BoxSizes:
        """From images as (width, height, annotations)."""
        rows = [(a.box.width, a.box.height, max(w, h)) for w, h, found in images for a in found]
        table = np.array(rows, dtype=np.float64).reshape(-1, 3)
        return cls(table[:, :2], table[:, 2])

    def at_network_input(self, side: int, tile_px: int | None = None) -> Float[np.ndarray, "m 2"]:
        """Widths and heights as the network sees them: after letter-boxing, of whole images or of tiles."""
        seen = self.longest if tile_px is None else np.minimum(self.longest, tile_px)
        return self.boxes * (side / seen)[:, None]


class Clusters(NamedTuple):
    """K-means on sizes, smallest first.

    Attributes:
        sizes: width and height of each mean.
        shares: of the boxes that are nearest to it.
        mean_best_iou: of each box with the mean nearest to it, both centred; 1 where all sizes are met.
    """

    sizes: Float[np.ndarray, "k 2"]
    shares: Float[np.ndarray, " k"]
    mean_best_iou: float


def kmeans(sizes: Float[np.ndarray, "m 2"], k: int, seed: int) -> Clusters:
    """Cluster sizes under the distance 1 - IoU (Redmon and Farhadi, "YOLO9000", 2017).

    Args:
        sizes: at least one row.
        k: fewer come back where there are fewer different sizes.
    """
    rng = np.random.default_rng(seed)
    different = np.unique(sizes, axis=0)
    k = min(k, len(different))
    tries = [_converged(sizes, _spread(different, k, rng)) for _ in range(_RESTARTS)]
    means = max(tries, key=lambda found: float(_iou(sizes, found).max(1).mean()))
    means = means[np.argsort(means.prod(1), kind="stable")]
    table = _iou(sizes, means)
    shares = np.bincount(table.argmax(1), minlength=len(means)) / len(sizes)
    return Clusters(means, shares, float(table.max(1).mean()))


def _spread(sizes: Float[np.ndarray, "m 2"], k: int, rng: np.random.Generator) -> Float[np.ndarray, "k 2"]:
    """First means: far from each other, as k-means++ draws them."""
    means = sizes[rng.integers(len(sizes))][None]
    while len(means) < k:
        distance = 1 - _iou(sizes, means).max(1)
        means = np.concatenate([means, sizes[rng.choice(len(sizes), p=distance / distance.sum())][None]])
    return means


def _converged(sizes: Float[np.ndarray, "m 2"], means: Float[np.ndarray, "k 2"]) -> Float[np.ndarray, "k 2"]:
    """Means that no longer move; one that nothing is nearest to stays where it is."""
    nearest: Int[np.ndarray, " m"] | None = None
    for _ in range(_ROUNDS):
        now = _iou(sizes, means).argmax(1)
        if nearest is not None and (now == nearest).all():
            break
        nearest = now
        groups = [sizes[nearest == i] for i in range(len(means))]
        means = np.stack([g.mean(0) if len(g) else m for g, m in zip(groups, means, strict=True)])
    return means


def _iou(sizes: Float[np.ndarray, "m 2"], means: Float[np.ndarray, "k 2"]) -> Float[np.ndarray, "m k"]:
    """IoU of boxes of these sizes, laid middle on middle."""
    common = np.minimum(sizes[:, None], means[None]).prod(-1)
    return common / (sizes.prod(-1)[:, None] + means.prod(-1)[None] - common)


def off_grid_share(sizes: Float[np.ndarray, "m 2"], stride: int) -> float:
    """Share of boxes to expect without any cell's centre in them; only the nearest cell can learn those.

    Wherever it lies, a side of ``w`` pixels meets a grid of ``stride`` by a chance of min(1, w / stride).
    """
    return float(1 - np.minimum(1, sizes / stride).prod(1).mean())


class Recommendation(NamedTuple):
    """What to set, from sizes alone.

    Attributes:
        finest: the coarsest stride that is fine enough; None where even the finest one is not.
        tile_px: the largest tile in image pixels, at today's side, with which the head's own finest stride
            is fine enough; None where no tile helps or none is needed.
    """

    max_stride: int | None
    tile_px: int | None


def recommend(
    sizes: BoxSizes, side: int, head_strides: Sequence[int], tile_px: int | None = None
) -> Recommendation:
    """The stride that these boxes need, and the tile that makes them large enough for this head.

    Args:
        side: of the network's input, in pixels.
        tile_px: of the tiles there are already; a better one is smaller.
    """
    shown = sizes.at_network_input(side, tile_px)
    max_stride = max((s for s in STRIDES if off_grid_share(shown, s) <= MAX_OFF_GRID), default=None)
    if max_stride is not None and max_stride >= min(head_strides):
        return Recommendation(max_stride, None)
    now = min(int(sizes.longest.max()), tile_px or sys.maxsize)
    tiles = (t for t in range(now // 32 * 32, SMALLEST_TILE_PX - 1, -32) if t < now)
    fitting = (
        t for t in tiles if off_grid_share(sizes.at_network_input(side, t), min(head_strides)) <= MAX_OFF_GRID
    )
    return Recommendation(max_stride, next(fitting, None))
