"""Large images in overlapping tiles: training on them, and looking through them.

A defect of a few pixels on a board of thousands is gone once the board is letter-boxed to 640 (or 320). A
tile keeps it. Tiles overlap, so that whatever is smaller than the overlap is whole in one of them;
``seams.py`` brings together what several tiles saw.
"""

from __future__ import annotations

import math
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

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

_EDGE = 0.01
"""A box that ends within this share of a tile's side of an inner edge is taken as cut by it."""
_SMALLEST_PX = 1.0
Predict = Callable[[Iterable[ImageRecord]], Iterator[Prediction]]
"""Finds things on images, streamed in order."""


class Tile(NamedTuple):
    """A part of an image, in its pixels."""

    left: int
    top: int
    right: int
    bottom: int


def tile_grid(width: int, height: int, tiles: Tiles) -> list[Tile]:
    """Tiles that cover an image of this size, row by row; one that is all of it where it fits into a tile.

    They lie evenly, each shares at least ``tiles.overlap`` of its side with the next.
    """
    return [
        Tile(left, top, min(left + tiles.px, width), min(top + tiles.px, height))
        for top in _starts(height, tiles)
        for left in _starts(width, tiles)
    ]


def _starts(length: int, tiles: Tiles) -> list[int]:
    room = length - tiles.px
    if room <= 0:
        return [0]
    steps = math.ceil(room / max(1, math.floor(tiles.px * (1 - tiles.overlap))))
    return [i * room // steps for i in range(steps + 1)]


def image_views(image: ImageRecord, tiles: Tiles) -> list[ImageRecord]:
    """What to look at instead of an image: its tiles, and itself if ``tiles.whole`` or if it fits."""
    places = tile_grid(image.width, image.height, tiles)
    if len(places) == 1:
        return [image]
    parts = [_part(image, place) for place in places]
    return [*parts, image] if tiles.whole else parts


def _part(image: ImageRecord, tile: Tile) -> ImageRecord:
    place = ",".join(map(str, tile))
    return ImageRecord(
        f"{image.key}@{place}",
        f"{image.name} [{place}]",
        image.path,
        tile.right - tile.left,
        tile.bottom - tile.top,
        tile,
    )


def labelled_views(labelled: LabelledImage, tiles: Tiles) -> list[LabelledImage]:
    """The views of an image to train on, each with the boxes that it shows.

    A box belongs to every tile that shows at least ``tiles.visible`` of it, cut at the tile's edges, and
    where none does to the one that shows most of it. Of the tiles without a box a share of ``tiles.empty`` is
    kept, always the same ones.
    """
    views = image_views(labelled.image, tiles)
    if len(views) == 1:
        return [labelled]
    whole = [LabelledImage(v, labelled.annotations) for v in views if v.region is None]
    parts = [v for v in views if v.region is not None]
    shown: list[list[Annotation]] = [[] for _ in parts]
    for annotation in labelled.annotations:
        shares = [_visible(annotation.box, v) for v in parts]
        enough = min(tiles.visible, max(shares))
        for found, view, share in zip(shown, parts, shares, strict=True):
            if share >= enough and (cut := _cut_out(annotation.box, view)) is not None:
                found.append(replace(annotation, box=cut))
    kept = [
        LabelledImage(view, tuple(found))
        for view, found in zip(parts, shown, strict=True)
        if found or zlib.crc32(view.key.encode()) < tiles.empty * (1 << 32)
    ]
    return [*kept, *whole] or [LabelledImage(parts[0], ())]


def training_views(images: Sequence[LabelledImage], tiles: Tiles | None) -> Sequence[LabelledImage]:
    """Images to train on, with tiles in the place of large ones."""
    return images if tiles is None else [view for p in images for view in labelled_views(p, tiles)]


def _visible(box: Box, view: ImageRecord) -> float:
    cut = _cut_out(box, view)
    return cut.area / box.area if cut is not None else 0.0


def _cut_out(box: Box, view: ImageRecord) -> Box | None:
    """The part of a box that a tile shows, in the tile's pixels; None where that is less than a pixel."""
    left, top = _corner(view)
    x1, y1 = max(box.x1 - left, 0.0), max(box.y1 - top, 0.0)
    x2, y2 = min(box.x2 - left, float(view.width)), min(box.y2 - top, float(view.height))
    if x2 - x1 < min(_SMALLEST_PX, box.width) or y2 - y1 < min(_SMALLEST_PX, box.height):
        return None
    return Box(x1, y1, x2, y2)


def _corner(view: ImageRecord) -> tuple[int, int]:
    return (view.region[0], view.region[1]) if view.region is not None else (0, 0)


def predict_tiled(look: Predict, images: Iterable[ImageRecord], tiles: Tiles) -> Iterator[Prediction]:
    """What ``look`` finds on the views of each image, brought together; streamed in order.

    An image that fits into a tile is looked at as ever. ``look`` gets one stream of views, so that its
    batches are full.
    """
    waiting: deque[tuple[ImageRecord, list[ImageRecord]]] = deque()

    def views() -> Iterator[ImageRecord]:
        for image in images:
            its_views = image_views(image, tiles)
            waiting.append((image, its_views))
            yield from its_views

    stream = look(views())
    for first in stream:
        image, its_views = waiting.popleft()
        if len(its_views) == 1:
            yield first
            continue
        seen = [first, *(next(stream) for _ in its_views[1:])]
        yield _together(image, list(zip(its_views, seen, strict=True)), tiles)


def _together(image: ImageRecord, seen: Sequence[tuple[ImageRecord, Prediction]], tiles: Tiles) -> Prediction:
    found = [_in_image(one, view, image, tiles) for view, page in seen for one in page.detections]
    detections = tuple(merge_detections(found))
    routing = _mean_routing([page.routing for _, page in seen])
    return Prediction(image.key, detections, routing, image_uncertainty(detections), seen[0][1].version)


def _in_image(detection: Detection, view: ImageRecord, image: ImageRecord, tiles: Tiles) -> TileDetection:
    """A tile's detection in the image's pixels, with the sides at which an inner edge of the tile cuts it."""
    left, top = _corner(view)
    box, slack = detection.box, max(2.0, _EDGE * tiles.px)
    moved = Box(box.x1 + left, box.y1 + top, box.x2 + left, box.y2 + top)
    cut = CutEdges(
        left=left > 0 and box.x1 < slack,
        top=top > 0 and box.y1 < slack,
        right=left + view.width < image.width and box.x2 > view.width - slack,
        bottom=top + view.height < image.height and box.y2 > view.height - slack,
    )
    return TileDetection(replace(detection, box=moved), cut)


def _mean_routing(routings: Sequence[Routing]) -> Routing:
    """The experts that the views used most, as many as one view uses, their weights summing to one."""
    total: dict[int, float] = {}
    for routing in routings:
        for expert, weight in zip(routing.experts, routing.weights, strict=True):
            total[expert] = total.get(expert, 0.0) + weight
    best = sorted(total.items(), key=lambda item: -item[1])[: len(routings[0].experts)]
    whole = math.fsum(weight for _, weight in best)
    return Routing(
        tuple(expert for expert, _ in best),
        tuple(weight / whole for _, weight in best),
        math.fsum(r.entropy for r in routings) / len(routings),
    )
