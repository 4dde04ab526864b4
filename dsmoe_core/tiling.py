"""Large pictures in overlapping tiles: training on them, and looking through them.

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
    Finding,
    LabelledPicture,
    Picture,
    PictureFindings,
    Routing,
)
from dsmoe_core.tile_merge import Cut, Seen, merged
from dsmoe_core.uncertainty import picture_uncertainty

_EDGE = 0.01
"""A box that ends within this share of a tile's side of an inner edge is taken as cut by it."""
_SMALLEST_PX = 1.0
Look = Callable[[Iterable[Picture]], Iterator[PictureFindings]]
"""Finds things on pictures, streamed in order."""


class Tile(NamedTuple):
    """A part of a picture, in its pixels."""

    left: int
    top: int
    right: int
    bottom: int


def tiles_of(width: int, height: int, tiles: Tiles) -> list[Tile]:
    """Tiles that cover a picture of this size, row by row; one that is all of it where it fits into a tile.

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


def views_of(picture: Picture, tiles: Tiles) -> list[Picture]:
    """What to look at instead of a picture: its tiles, and itself if ``tiles.whole`` or if it fits."""
    places = tiles_of(picture.width, picture.height, tiles)
    if len(places) == 1:
        return [picture]
    parts = [_part(picture, place) for place in places]
    return [*parts, picture] if tiles.whole else parts


def _part(picture: Picture, tile: Tile) -> Picture:
    place = ",".join(map(str, tile))
    return Picture(
        f"{picture.key}@{place}",
        f"{picture.name} [{place}]",
        picture.path,
        tile.right - tile.left,
        tile.bottom - tile.top,
        tile,
    )


def labelled_views(labelled: LabelledPicture, tiles: Tiles) -> list[LabelledPicture]:
    """The views of a picture to train on, each with the boxes that it shows.

    A box belongs to every tile that shows at least ``tiles.visible`` of it, cut at the tile's edges, and
    where none does to the one that shows most of it. Of the tiles without a box a share of ``tiles.empty`` is
    kept, always the same ones.
    """
    views = views_of(labelled.picture, tiles)
    if len(views) == 1:
        return [labelled]
    whole = [LabelledPicture(v, labelled.annotations) for v in views if v.region is None]
    parts = [v for v in views if v.region is not None]
    shown: list[list[Annotation]] = [[] for _ in parts]
    for annotation in labelled.annotations:
        shares = [_visible(annotation.box, v) for v in parts]
        enough = min(tiles.visible, max(shares))
        for found, view, share in zip(shown, parts, shares, strict=True):
            if share >= enough and (cut := _cut_out(annotation.box, view)) is not None:
                found.append(replace(annotation, box=cut))
    kept = [
        LabelledPicture(view, tuple(found))
        for view, found in zip(parts, shown, strict=True)
        if found or zlib.crc32(view.key.encode()) < tiles.empty * (1 << 32)
    ]
    return [*kept, *whole] or [LabelledPicture(parts[0], ())]


def training_views(pictures: Sequence[LabelledPicture], tiles: Tiles | None) -> Sequence[LabelledPicture]:
    """Pictures to train on, with tiles in the place of large ones."""
    return pictures if tiles is None else [view for p in pictures for view in labelled_views(p, tiles)]


def _visible(box: Box, view: Picture) -> float:
    cut = _cut_out(box, view)
    return cut.area / box.area if cut is not None else 0.0


def _cut_out(box: Box, view: Picture) -> Box | None:
    """The part of a box that a tile shows, in the tile's pixels; None where that is less than a pixel."""
    left, top = _corner(view)
    x1, y1 = max(box.x1 - left, 0.0), max(box.y1 - top, 0.0)
    x2, y2 = min(box.x2 - left, float(view.width)), min(box.y2 - top, float(view.height))
    if x2 - x1 < min(_SMALLEST_PX, box.width) or y2 - y1 < min(_SMALLEST_PX, box.height):
        return None
    return Box(x1, y1, x2, y2)


def _corner(view: Picture) -> tuple[int, int]:
    return (view.region[0], view.region[1]) if view.region is not None else (0, 0)


def tiled(look: Look, pictures: Iterable[Picture], tiles: Tiles) -> Iterator[PictureFindings]:
    """What ``look`` finds on the views of each picture, brought together; streamed in order.

    A picture that fits into a tile is looked at as ever. ``look`` gets one stream of views, so that its
    batches are full.
    """
    waiting: deque[tuple[Picture, list[Picture]]] = deque()

    def views() -> Iterator[Picture]:
        for picture in pictures:
            its_views = views_of(picture, tiles)
            waiting.append((picture, its_views))
            yield from its_views

    stream = look(views())
    for first in stream:
        picture, its_views = waiting.popleft()
        if len(its_views) == 1:
            yield first
            continue
        seen = [first, *(next(stream) for _ in its_views[1:])]
        yield _together(picture, list(zip(its_views, seen, strict=True)), tiles)


def _together(
    picture: Picture, seen: Sequence[tuple[Picture, PictureFindings]], tiles: Tiles
) -> PictureFindings:
    found = [_in_picture(one, view, picture, tiles) for view, page in seen for one in page.findings]
    findings = tuple(merged(found))
    routing = _mean_routing([page.routing for _, page in seen])
    return PictureFindings(picture.key, findings, routing, picture_uncertainty(findings), seen[0][1].version)


def _in_picture(finding: Finding, view: Picture, picture: Picture, tiles: Tiles) -> Seen:
    """A tile's finding in the picture's pixels, with the sides at which an inner edge of the tile cuts it."""
    left, top = _corner(view)
    box, slack = finding.box, max(2.0, _EDGE * tiles.px)
    moved = Box(box.x1 + left, box.y1 + top, box.x2 + left, box.y2 + top)
    cut = Cut(
        left=left > 0 and box.x1 < slack,
        top=top > 0 and box.y1 < slack,
        right=left + view.width < picture.width and box.x2 > view.width - slack,
        bottom=top + view.height < picture.height and box.y2 > view.height - slack,
    )
    return Seen(replace(finding, box=moved), cut)


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
