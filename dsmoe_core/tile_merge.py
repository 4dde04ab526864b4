"""Merges the detections of overlapping tiles, so that each defect is detected once and as a whole.

Rules, in this order, within each class:

1. A piece that a tile boundary cuts is dropped if an uncut detection covers the same place.
2. Pieces that meet at a tile boundary, or overlap strongly, are replaced by the box around both.
3. Of detections that overlap, an uncut one gives the box and the one of the highest score gives the
probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from dsmoe_core.schema import Box, Detection

SAME_IOU = 0.5
"""Minimum IoU of two detections of the same defect."""
MIN_COVERED = 0.6
"""Minimum share of a piece that lies inside another detection for both to be the same defect."""
MIN_SCORE_RATIO = 0.5
"""Minimum score of an uncut detection that replaces a piece, as a share of the piece's score."""
MIN_BOUNDARY_OVERLAP = 0.2
"""Minimum overlap of two pieces along the tile boundary, as a share of the shorter one.

It is low because pieces of an oblique scratch overlap little.
"""


class CutEdges(NamedTuple):
    """Sides at which the boundary of its tile cuts a detection; the border of the image does not count."""

    left: bool = False
    top: bool = False
    right: bool = False
    bottom: bool = False


class TileDetection(NamedTuple):
    """A detection of one tile, in image pixels."""

    detection: Detection
    cut: CutEdges

    @property
    def whole(self) -> bool:
        """Whether no tile boundary cuts it."""
        return not any(self.cut)


def merge_detections(tile_detections: Sequence[TileDetection]) -> list[Detection]:
    """Merge the detections of all tiles of one image.

    Returns:
        One detection per defect, highest score first.
    """
    merged: list[Detection] = []
    for label in dict.fromkeys(d.detection.label for d in tile_detections):
        of_class = [d for d in tile_detections if d.detection.label == label]
        whole = [d for d in of_class if d.whole]
        pieces = [d for d in of_class if not d.whole and not _is_covered(d, whole)]
        merged += _deduplicated([*whole, *_joined(pieces)])
    return sorted(merged, key=lambda d: -d.score)


def _is_covered(piece: TileDetection, whole: Sequence[TileDetection]) -> bool:
    """Whether an uncut detection of sufficient score covers this piece."""
    min_score = MIN_SCORE_RATIO * piece.detection.score
    boxes = [w.detection.box for w in whole if w.detection.score >= min_score]
    if not boxes:
        return False
    common = _intersections(_corners([piece.detection.box]), _corners(boxes))[0]
    return bool(common.max() >= MIN_COVERED * piece.detection.box.area)


def _joined(pieces: Sequence[TileDetection]) -> list[TileDetection]:
    """Join pieces of the same defect until no two of them meet."""
    pending = sorted(pieces, key=lambda p: -p.detection.score)
    joined: list[TileDetection] = []
    while pending:
        piece = pending.pop(0)
        partner = next((other for other in pending if _meet(piece, other)), None)
        if partner is None:
            joined.append(piece)
        else:
            pending.remove(partner)
            pending = [*joined, _union(piece, partner), *pending]  # the union may meet pieces checked before
            joined = []
    return joined


def _meet(first: TileDetection, second: TileDetection) -> bool:
    """Whether two pieces are one defect: on two sides of a tile boundary, or detected in two tiles."""
    a, b = first.detection.box, second.detection.box
    common_x, common_y = min(a.x2, b.x2) - max(a.x1, b.x1), min(a.y2, b.y2) - max(a.y1, b.y1)
    if common_x <= 0 or common_y <= 0:
        return False
    if common_x * common_y >= MIN_COVERED * min(a.area, b.area):
        return True
    side_by_side = common_y >= MIN_BOUNDARY_OVERLAP * min(a.height, b.height)
    one_above_other = common_x >= MIN_BOUNDARY_OVERLAP * min(a.width, b.width)
    left, right = (first, second) if a.x1 < b.x1 else (second, first)
    upper, lower = (first, second) if a.y1 < b.y1 else (second, first)
    return (side_by_side and left.cut.right and right.cut.left) or (
        one_above_other and upper.cut.bottom and lower.cut.top
    )


def _union(first: TileDetection, second: TileDetection) -> TileDetection:
    """The box around both pieces with the probabilities of the higher score.

    It is cut at the sides where its outermost piece is.
    """
    a, b = first.detection.box, second.detection.box
    box = Box(min(a.x1, b.x1), min(a.y1, b.y1), max(a.x2, b.x2), max(a.y2, b.y2))
    excess = (b.x1 - a.x1, b.y1 - a.y1, a.x2 - b.x2, a.y2 - b.y2)  # above 0 where `first` extends further
    cut = CutEdges(
        *(
            (cut_a and cut_b) if side == 0 else (cut_a if side > 0 else cut_b)
            for side, cut_a, cut_b in zip(excess, first.cut, second.cut, strict=True)
        )
    )
    confident = first if first.detection.score >= second.detection.score else second
    return TileDetection(replace(confident.detection, box=box), cut)


def _deduplicated(tile_detections: Sequence[TileDetection]) -> list[Detection]:
    """One detection per place: boxes that were never cut take precedence, then the highest score."""
    order = sorted(tile_detections, key=lambda d: (not d.whole, -d.detection.score))
    corners = _corners([d.detection.box for d in order])
    areas = (corners[:, 2:] - corners[:, :2]).prod(1)
    common = _intersections(corners, corners)
    same = common >= SAME_IOU * (areas[:, None] + areas[None] - common)
    unassigned = np.ones(len(order), dtype=bool)
    kept = []
    for i, first in enumerate(order):
        if not unassigned[i]:
            continue
        group = np.flatnonzero(unassigned & same[i])
        unassigned[group] = False
        best = max((order[j].detection for j in group), key=lambda d: d.score)
        kept.append(replace(best, box=first.detection.box))
    return kept


def _corners(boxes: Sequence[Box]) -> Float[np.ndarray, "m 4"]:
    return np.array([b.corners for b in boxes], dtype=np.float64).reshape(-1, 4)


def _intersections(
    first: Float[np.ndarray, "m 4"], second: Float[np.ndarray, "n 4"]
) -> Float[np.ndarray, "m n"]:
    """Intersection area of each pair of boxes, in square pixels."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    return np.maximum(high - low, 0.0).prod(-1)
