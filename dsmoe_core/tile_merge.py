"""Detections of overlapping tiles brought together: each defect once, whole, whatever seam it lies on.

Rules, in this order, within each class:

1. A piece cut by a tile's inner edge gives way to a detection that shows the same place whole.
2. Pieces that meet at a seam, or lie in each other, are one defect: the box around both.
3. Of detections of the same place the one seen whole gives the box, and the surest one the probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from dsmoe_core.schema import Box, Detection

SAME_IOU = 0.5
"""Detections that overlap so much are one."""
COVERED = 0.6
"""A piece of which so much lies in a whole detection is a piece of that."""
SURE = 0.5
"""A whole detection takes a piece's place only with at least this share of its score."""
MEET = 0.2
"""Pieces meet where, along the seam, they share so much of the shorter one: little in a slanting scratch."""


class CutEdges(NamedTuple):
    """The sides of a detection at which an inner edge of its tile cuts it."""

    left: bool = False
    top: bool = False
    right: bool = False
    bottom: bool = False


class TileDetection(NamedTuple):
    """A detection in image pixels, and how its tile cut it."""

    detection: Detection
    cut: CutEdges

    @property
    def whole(self) -> bool:
        """Whether no inner edge cuts it."""
        return not any(self.cut)


def merge_detections(seen: Sequence[TileDetection]) -> list[Detection]:
    """Each defect once, highest score first."""
    found: list[Detection] = []
    for label in dict.fromkeys(s.detection.label for s in seen):
        same = [s for s in seen if s.detection.label == label]
        whole = [s for s in same if s.whole]
        pieces = [s for s in same if not s.whole and not _explained(s, whole)]
        found += _once([*whole, *_joined(pieces)])
    return sorted(found, key=lambda f: -f.score)


def _explained(piece: TileDetection, whole: Sequence[TileDetection]) -> bool:
    """Whether a detection seen whole shows what this is a piece of."""
    sure = [w.detection.box for w in whole if w.detection.score >= SURE * piece.detection.score]
    if not sure:
        return False
    common = _common(_corners([piece.detection.box]), _corners(sure))[0]
    return bool(common.max() >= COVERED * piece.detection.box.area)


def _joined(pieces: Sequence[TileDetection]) -> list[TileDetection]:
    """Pieces that meet at a seam, grown together until none meets another."""
    left = sorted(pieces, key=lambda s: -s.detection.score)
    grown: list[TileDetection] = []
    while left:
        one = left.pop(0)
        partner = next((other for other in left if _meet(one, other)), None)
        if partner is None:
            grown.append(one)
        else:
            left.remove(partner)
            left = [*grown, _union(one, partner), *left]  # the larger one may meet what it did not before
            grown = []
    return grown


def _meet(one: TileDetection, other: TileDetection) -> bool:
    """Whether these are two pieces of one defect: on two sides of a seam, or one seen by two tiles."""
    a, b = one.detection.box, other.detection.box
    wide, high = min(a.x2, b.x2) - max(a.x1, b.x1), min(a.y2, b.y2) - max(a.y1, b.y1)
    if wide <= 0 or high <= 0:
        return False
    if wide * high >= COVERED * min(a.area, b.area):
        return True
    along_y = high >= MEET * min(a.height, b.height)
    along_x = wide >= MEET * min(a.width, b.width)
    left, right = (one, other) if a.x1 < b.x1 else (other, one)
    upper, lower = (one, other) if a.y1 < b.y1 else (other, one)
    return (along_y and left.cut.right and right.cut.left) or (along_x and upper.cut.bottom and lower.cut.top)


def _union(one: TileDetection, other: TileDetection) -> TileDetection:
    """The box around both, still cut where its outermost piece is, with the surer one's probabilities."""
    a, b = one.detection.box, other.detection.box
    box = Box(min(a.x1, b.x1), min(a.y1, b.y1), max(a.x2, b.x2), max(a.y2, b.y2))
    reaches = (b.x1 - a.x1, b.y1 - a.y1, a.x2 - b.x2, a.y2 - b.y2)  # above 0 where `one` goes further
    cut = CutEdges(
        *(
            (mine and its) if reach == 0 else (mine if reach > 0 else its)
            for reach, mine, its in zip(reaches, one.cut, other.cut, strict=True)
        )
    )
    higher = one if one.detection.score >= other.detection.score else other
    return TileDetection(replace(higher.detection, box=box), cut)


def _once(seen: Sequence[TileDetection]) -> list[Detection]:
    """One detection a place: boxes that were never cut first, then by score."""
    order = sorted(seen, key=lambda s: (not s.whole, -s.detection.score))
    corners = _corners([s.detection.box for s in order])
    areas = (corners[:, 2:] - corners[:, :2]).prod(1)
    common = _common(corners, corners)
    same = common >= SAME_IOU * (areas[:, None] + areas[None] - common)
    free = np.ones(len(order), dtype=bool)
    found = []
    for i, one in enumerate(order):
        if not free[i]:
            continue
        group = np.flatnonzero(free & same[i])
        free[group] = False
        best_matches = max((order[j].detection for j in group), key=lambda f: f.score)
        found.append(replace(best_matches, box=one.detection.box))
    return found


def _corners(boxes: Sequence[Box]) -> Float[np.ndarray, "m 4"]:
    return np.array([b.corners for b in boxes], dtype=np.float64).reshape(-1, 4)


def _common(first: Float[np.ndarray, "m 4"], second: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "m n"]:
    """Area that each pair of boxes has in common."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    return np.maximum(high - low, 0.0).prod(-1)
