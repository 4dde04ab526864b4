"""Statistics of box sizes, and the head stride and tile size that they require.

The detection head is anchor-free: no anchor box is built into it. K-means over the sizes summarises them.
What decides is how many grid cells of the head have their centre in a box, because these cells learn it
(``dsmoe_core/assign.py``).
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
"""A stride is fine enough if at most this share of the boxes contains no cell centre."""
MIN_TILE_PX = 64
_RESTARTS, _MAX_ITERATIONS = 5, 100


class BoxSizes(NamedTuple):
    """Sizes of boxes, and of the images they are on, in image pixels.

    Attributes:
        boxes: width and height of each box.
        longest_side: of the image of each box.
    """

    boxes: Float[np.ndarray, "m 2"]
    longest_side: Float[np.ndarray, " m"]

    @classmethod
    def of(cls, images: Iterable[tuple[int, int, Sequence[Annotation]]]) -> BoxSizes:
        """Sizes of all boxes of images that are given as (width, height, annotations)."""
        rows = [(a.box.width, a.box.height, max(w, h)) for w, h, annotations in images for a in annotations]
        table = np.array(rows, dtype=np.float64).reshape(-1, 3)
        return cls(table[:, :2], table[:, 2])

    def at_network_input(self, side: int, tile_px: int | None = None) -> Float[np.ndarray, "m 2"]:
        """Widths and heights in pixels of the network's input.

        Args:
            side: of the network's square input, in pixels.
            tile_px: side of the tiles that are letterboxed, in image pixels; None: whole images are.
        """
        source_side = self.longest_side if tile_px is None else np.minimum(self.longest_side, tile_px)
        return self.boxes * (side / source_side)[:, None]


class Clusters(NamedTuple):
    """Result of K-means over box sizes, smallest area first.

    Attributes:
        sizes: width and height of each mean.
        shares: share of the boxes that are nearest to each mean.
        mean_best_iou: mean IoU of each box with its nearest mean, both centred; 1 is a perfect fit.
    """

    sizes: Float[np.ndarray, "k 2"]
    shares: Float[np.ndarray, " k"]
    mean_best_iou: float


def kmeans(sizes: Float[np.ndarray, "m 2"], k: int, seed: int) -> Clusters:
    """Cluster box sizes under the distance 1 - IoU (Redmon and Farhadi, "YOLO9000", 2017).

    Args:
        sizes: widths and heights; at least one row.
        k: number of clusters; at most the number of distinct sizes are returned.
        seed: of the random initialisation. The best of five restarts is returned.
    """
    rng = np.random.default_rng(seed)
    distinct = np.unique(sizes, axis=0)
    k = min(k, len(distinct))
    candidates = [_converged(sizes, _initial_means(distinct, k, rng)) for _ in range(_RESTARTS)]
    means = max(candidates, key=lambda means: float(_iou(sizes, means).max(1).mean()))
    means = means[np.argsort(means.prod(1), kind="stable")]
    iou = _iou(sizes, means)
    shares = np.bincount(iou.argmax(1), minlength=len(means)) / len(sizes)
    return Clusters(means, shares, float(iou.max(1).mean()))


def _initial_means(
    sizes: Float[np.ndarray, "m 2"], k: int, rng: np.random.Generator
) -> Float[np.ndarray, "k 2"]:
    """Initial means far from each other, sampled as in k-means++."""
    means = sizes[rng.integers(len(sizes))][None]
    while len(means) < k:
        distance = 1 - _iou(sizes, means).max(1)
        means = np.concatenate([means, sizes[rng.choice(len(sizes), p=distance / distance.sum())][None]])
    return means


def _converged(sizes: Float[np.ndarray, "m 2"], means: Float[np.ndarray, "k 2"]) -> Float[np.ndarray, "k 2"]:
    """Means after Lloyd's iterations; a mean without any box stays where it is."""
    nearest: Int[np.ndarray, " m"] | None = None
    for _ in range(_MAX_ITERATIONS):
        now = _iou(sizes, means).argmax(1)
        if nearest is not None and (now == nearest).all():
            break
        nearest = now
        groups = [sizes[nearest == i] for i in range(len(means))]
        means = np.stack([g.mean(0) if len(g) else m for g, m in zip(groups, means, strict=True)])
    return means


def _iou(sizes: Float[np.ndarray, "m 2"], means: Float[np.ndarray, "k 2"]) -> Float[np.ndarray, "m k"]:
    """IoU of boxes of these sizes with a common centre."""
    common = np.minimum(sizes[:, None], means[None]).prod(-1)
    return common / (sizes.prod(-1)[:, None] + means.prod(-1)[None] - common)


def off_grid_share(sizes: Float[np.ndarray, "m 2"], stride: int) -> float:
    """Expected share of boxes that contain no cell centre of a grid; only the nearest cell can learn these.

    At a random position, a side of ``w`` pixels contains a centre with probability min(1, w / stride).

    Args:
        sizes: widths and heights in pixels of the network's input.
        stride: distance of the grid's cell centres, in the same pixels.
    """
    return float(1 - np.minimum(1, sizes / stride).prod(1).mean())


class Recommendation(NamedTuple):
    """Settings that fit the box sizes.

    Attributes:
        max_stride: the coarsest stride that is fine enough; None if even the finest stride is not.
        tile_px: the largest tile, in image pixels, with which the head's own finest stride is fine enough at
            the present input side; None if no tile helps or none is needed.
    """

    max_stride: int | None
    tile_px: int | None


def recommend(
    sizes: BoxSizes, side: int, head_strides: Sequence[int], tile_px: int | None = None
) -> Recommendation:
    """The stride that these boxes need, and the tile size that makes them large enough for the present head.

    Args:
        side: of the network's square input, in pixels.
        head_strides: of the present head.
        tile_px: side of the present tiles; only smaller ones are recommended.
    """
    input_sizes = sizes.at_network_input(side, tile_px)
    max_stride = max((s for s in STRIDES if off_grid_share(input_sizes, s) <= MAX_OFF_GRID), default=None)
    if max_stride is not None and max_stride >= min(head_strides):
        return Recommendation(max_stride, None)
    present = min(int(sizes.longest_side.max()), tile_px or sys.maxsize)
    tiles = (t for t in range(present // 32 * 32, MIN_TILE_PX - 1, -32) if t < present)
    fitting = (
        t for t in tiles if off_grid_share(sizes.at_network_input(side, t), min(head_strides)) <= MAX_OFF_GRID
    )
    return Recommendation(max_stride, next(fitting, None))
