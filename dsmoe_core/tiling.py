"""Tiling of large images into overlapping tiles, for training and for prediction.

A defect of a few pixels on an image of thousands disappears when the image is letterboxed to 640 (or 320)
pixels; in a tile it does not. Tiles overlap, so that a defect smaller than the overlap is complete in at
least one tile. ``tile_merge.py`` merges the detections of the tiles.
"""

from __future__ import annotations

import math
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsmoe_core.config import Tiles
from dsmoe_core.schema import (
    Annotation,
    Box,
    Detection,
    ImageRecord,
    LabelledImage,
    Prediction,
    Routing,
)
from dsmoe_core.tile_merge import CutEdges, TileDetection, merge_detections
from dsmoe_core.uncertainty import image_uncertainty

_BOUNDARY_SHARE = 0.01
"""A box that ends within this share of a tile's side of a tile boundary counts as cut by it."""
_MIN_BOUNDARY_PX = 2.0
_MIN_BOX_PX = 1.0
Predict = Callable[[Iterable[ImageRecord]], Iterator[Prediction]]
"""Predicts on a stream of images, in their order."""


class Tile(NamedTuple):
    """A part of an image, in its pixels."""

    left: int
    top: int
    right: int
    bottom: int


def tile_grid(width: int, height: int, tiles: Tiles) -> list[Tile]:
    """Tiles that cover an image of this size, row by row; one tile if the image fits into it.

    They are evenly spaced; each shares at least ``tiles.overlap`` of its side with the next.
    """
    return [
        Tile(left, top, min(left + tiles.px, width), min(top + tiles.px, height))
        for top in _starts(height, tiles)
        for left in _starts(width, tiles)
    ]


def _starts(length: int, tiles: Tiles) -> list[int]:
    """First pixel of each tile along one side of an image."""
    last_start = length - tiles.px
    if last_start <= 0:
        return [0]
    steps = math.ceil(last_start / max(1, math.floor(tiles.px * (1 - tiles.overlap))))
    return [i * last_start // steps for i in range(steps + 1)]


def image_views(image: ImageRecord, tiles: Tiles) -> list[ImageRecord]:
    """The tiles of an image, then the image itself if ``tiles.whole``; only the image if it fits one tile."""
    grid = tile_grid(image.width, image.height, tiles)
    if len(grid) == 1:
        return [image]
    parts = [_part(image, tile) for tile in grid]
    return [*parts, image] if tiles.whole else parts


def _part(image: ImageRecord, tile: Tile) -> ImageRecord:
    region = ",".join(map(str, tile))
    return ImageRecord(
        f"{image.key}@{region}",
        f"{image.name} [{region}]",
        image.path,
        tile.right - tile.left,
        tile.bottom - tile.top,
        tile,
    )


def labelled_views(labelled: LabelledImage, tiles: Tiles) -> list[LabelledImage]:
    """The views of an image to train on, each with the boxes in it.

    A box is assigned to every tile that contains at least ``tiles.visible`` of its area, clipped to the tile;
    if there is none, to the tiles that contain most of it. Of the tiles without a box the share
    ``tiles.empty`` is kept; which ones is fixed by their key.
    """
    views = image_views(labelled.image, tiles)
    if len(views) == 1:
        return [labelled]
    whole_image = [LabelledImage(v, labelled.annotations) for v in views if v.region is None]
    parts = [v for v in views if v.region is not None]
    annotations: list[list[Annotation]] = [[] for _ in parts]
    for annotation in labelled.annotations:
        shares = [_visible_share(annotation.box, v) for v in parts]
        min_share = min(tiles.visible, max(shares))
        for of_view, view, share in zip(annotations, parts, shares, strict=True):
            if share >= min_share and (clipped := _clipped_to(view, annotation.box)) is not None:
                of_view.append(replace(annotation, box=clipped))
    selected = [
        LabelledImage(view, tuple(of_view))
        for view, of_view in zip(parts, annotations, strict=True)
        if of_view or zlib.crc32(view.key.encode()) < tiles.empty * (1 << 32)
    ]
    return [*selected, *whole_image] or [LabelledImage(parts[0], ())]


def training_views(images: Sequence[LabelledImage], tiles: Tiles | None) -> Sequence[LabelledImage]:
    """Images to train on, where large ones are replaced by their tiles; None: the images unchanged."""
    return images if tiles is None else [view for image in images for view in labelled_views(image, tiles)]


def boxes_on_tiles(
    image: ImageRecord, boxes: Sequence[Box], tiles: Tiles | None
) -> list[tuple[ImageRecord, Box]]:
    """For each box the tile with the nearest centre, and the box in its pixels, where it may be cut off.

    Args:
        tiles: None: the image is not cut.
    """
    views = [image] if tiles is None else [v for v in image_views(image, tiles) if v.region is not None]
    if len(views) < 2:
        return [(image, box) for box in boxes]
    return [_on_nearest(views, box) for box in boxes]


def _on_nearest(views: Sequence[ImageRecord], box: Box) -> tuple[ImageRecord, Box]:
    x, y = (box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2

    def distance(view: ImageRecord) -> float:
        left, top = _corner(view)
        return math.hypot(x - left - view.width / 2, y - top - view.height / 2)

    view = min(views, key=distance)
    left, top = _corner(view)
    return view, Box(box.x1 - left, box.y1 - top, box.x2 - left, box.y2 - top)


def _visible_share(box: Box, view: ImageRecord) -> float:
    clipped = _clipped_to(view, box)
    return clipped.area / box.area if clipped is not None else 0.0


def _clipped_to(view: ImageRecord, box: Box) -> Box | None:
    """The part of a box inside a tile, in the tile's pixels; None if it is narrower than a pixel."""
    left, top = _corner(view)
    x1, y1 = max(box.x1 - left, 0.0), max(box.y1 - top, 0.0)
    x2, y2 = min(box.x2 - left, float(view.width)), min(box.y2 - top, float(view.height))
    if x2 - x1 < min(_MIN_BOX_PX, box.width) or y2 - y1 < min(_MIN_BOX_PX, box.height):
        return None
    return Box(x1, y1, x2, y2)


def _corner(view: ImageRecord) -> tuple[int, int]:
    return (view.region[0], view.region[1]) if view.region is not None else (0, 0)


def predict_tiled(predict: Predict, images: Iterable[ImageRecord], tiles: Tiles) -> Iterator[Prediction]:
    """Predict on the views of each image and merge the results; streamed in the order of the images.

    Args:
        predict: called once with the views of all images as one stream, so that its batches are full.
        images: one that fits into a tile is predicted on unchanged.
    """
    pending: deque[tuple[ImageRecord, list[ImageRecord]]] = deque()

    def all_views() -> Iterator[ImageRecord]:
        for image in images:
            views = image_views(image, tiles)
            pending.append((image, views))
            yield from views

    stream = predict(all_views())
    for first in stream:
        image, views = pending.popleft()
        if len(views) == 1:
            yield first
            continue
        predictions = [first, *(next(stream) for _ in views[1:])]
        yield _merged(image, list(zip(views, predictions, strict=True)), tiles)


def _merged(
    image: ImageRecord, by_view: Sequence[tuple[ImageRecord, Prediction]], tiles: Tiles
) -> Prediction:
    """One prediction of an image from the predictions of its views."""
    detections = tuple(
        merge_detections(
            [
                _in_image(detection, view, image, tiles)
                for view, prediction in by_view
                for detection in prediction.detections
            ]
        )
    )
    routing = _mean_routing([prediction.routing for _, prediction in by_view])
    embedding = _mean_embedding([p.embedding for _, p in by_view if p.embedding is not None])
    version = by_view[0][1].version
    return Prediction(
        image.key, detections, routing, image_uncertainty(detections), version, embedding=embedding
    )


def _mean_embedding(embeddings: Sequence[NDArray[np.float32]]) -> NDArray[np.float32] | None:
    """Mean over the views, scaled to length 1; None without any."""
    if not embeddings:
        return None
    mean = np.stack(embeddings).mean(axis=0, dtype=np.float64)
    length = max(float(np.linalg.norm(mean)), 1e-12)
    scaled: NDArray[np.float32] = (mean / length).astype(np.float32)
    return scaled


def _in_image(detection: Detection, view: ImageRecord, image: ImageRecord, tiles: Tiles) -> TileDetection:
    """A tile's detection in image pixels, with the sides at which a boundary of the tile cuts it."""
    left, top = _corner(view)
    box, slack = detection.box, max(_MIN_BOUNDARY_PX, _BOUNDARY_SHARE * tiles.px)
    moved = Box(box.x1 + left, box.y1 + top, box.x2 + left, box.y2 + top)
    cut = CutEdges(
        left=left > 0 and box.x1 < slack,
        top=top > 0 and box.y1 < slack,
        right=left + view.width < image.width and box.x2 > view.width - slack,
        bottom=top + view.height < image.height and box.y2 > view.height - slack,
    )
    return TileDetection(replace(detection, box=moved), cut)


def _mean_routing(routings: Sequence[Routing]) -> Routing:
    """Mean weights of the experts over the views."""
    total: dict[int, float] = {}
    for routing in routings:
        for expert, weight in zip(routing.experts, routing.weights, strict=True):
            total[expert] = total.get(expert, 0.0) + weight
    best = sorted(total.items(), key=lambda item: -item[1])
    weight_sum = math.fsum(weight for _, weight in best)
    return Routing(
        tuple(expert for expert, _ in best),
        tuple(weight / weight_sum for _, weight in best),
        math.fsum(r.entropy for r in routings) / len(routings),
    )
