"""Consensus of several annotators: matches their boxes, measures agreement and merges the boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Literal, NamedTuple

from annotate.studio.protocol import Origin, Region
from dsmoe_core.schema import Box

MATCH_IOU = 0.5
"""Lowest IoU at which the boxes of two annotators count as the same defect."""

Boxes = Sequence[Region]  # of one annotator
RegionId = tuple[int, int]  # index of the annotator, index of the box in their list


class _Match(NamedTuple):
    """Two overlapping boxes of different annotators."""

    iou: float
    a: RegionId
    b: RegionId


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    w = min(a.x2, b.x2) - max(a.x1, b.x1)
    h = min(a.y2, b.y2) - max(a.y1, b.y1)
    if w <= 0 or h <= 0:
        return 0.0
    return w * h / (a.area + b.area - w * h)


def group_regions(annotators: Sequence[Boxes]) -> list[list[Region]]:
    """Group the boxes of several annotators by defect.

    Boxes are matched greedily by falling IoU; ties are resolved by position. Two boxes match if they have
    the same class and IoU >= MATCH_IOU. A group holds at most one box of each annotator.

    Args:
        annotators: the boxes of each annotator.

    Returns:
        Groups in the order of their first boxes. Every box is in exactly one group.
    """
    group = {(i, j): [(i, j)] for i, boxes in enumerate(annotators) for j in range(len(boxes))}
    for match in sorted(_matches(annotators), key=lambda m: (-m.iou, m.a, m.b)):
        a, b = group[match.a], group[match.b]
        if {i for i, _ in a}.isdisjoint(i for i, _ in b):
            a += b
            group.update(dict.fromkeys(b, a))
    distinct = {min(members): sorted(members) for members in group.values()}
    return [[annotators[i][j] for i, j in distinct[first]] for first in sorted(distinct)]


def agreement(annotators: Sequence[Boxes]) -> float | None:
    """Inter-annotator agreement: the mean pairwise F1 score of the boxes.

    Two annotators who both drew no box agree fully (1.0).

    Returns:
        0 to 1; None for fewer than two annotators.
    """
    pairs = list(combinations(annotators, 2))
    return sum(_f1(a, b) for a, b in pairs) / len(pairs) if pairs else None


def merge_regions(annotators: Sequence[Boxes], keep: Literal["majority", "union"]) -> tuple[Region, ...]:
    """Merge the boxes of several annotators into one list.

    A group of matching boxes becomes its mean box. If one of them started as a pre-annotation, the merged
    box keeps that pre-annotation's id.

    Args:
        keep: ``majority`` keeps groups that more than half of the annotators drew; ``union`` keeps all.
    """
    threshold = len(annotators) / 2 if keep == "majority" else 0
    return tuple(_mean_region(group) for group in group_regions(annotators) if len(group) > threshold)


def _matches(annotators: Sequence[Boxes]) -> Iterator[_Match]:
    for (i, boxes_i), (j, boxes_j) in combinations(enumerate(annotators), 2):
        for m, a in enumerate(boxes_i):
            for n, b in enumerate(boxes_j):
                if a.label == b.label and (overlap := iou(a.box, b.box)) >= MATCH_IOU:
                    yield _Match(overlap, (i, m), (j, n))


def _f1(a: Boxes, b: Boxes) -> float:
    if not a and not b:
        return 1.0
    shared = sum(len(group) == 2 for group in group_regions((a, b)))
    return 2 * shared / (len(a) + len(b))


def _mean_region(group: Sequence[Region]) -> Region:
    origins: set[Origin] = {region.origin for region in group}
    template = next((region for region in group if region.origin != "manual"), group[0])
    corners = zip(*(region.box.corners for region in group), strict=True)
    box = Box(*(sum(values) / len(group) for values in corners))
    return replace(template, box=box, origin=origins.pop() if len(origins) == 1 else "prediction-changed")
