"""Several people's boxes on one image: which mean the same defect, how far they agree, what is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Literal, NamedTuple

from annotate.studio.protocol import Origin, Region
from dsmoe_core.schema import Box

MATCH_IOU = 0.5  # two people who mean one defect seldom draw it alike; below this they mean two

Boxes = Sequence[Region]  # of one annotator


class _Link(NamedTuple):
    """Two boxes of different annotators that overlap, each as (annotator, place)."""

    iou: float
    one: tuple[int, int]
    other: tuple[int, int]


def iou(one: Box, other: Box) -> float:
    """Intersection over union, 0 to 1."""
    w = min(one.x2, other.x2) - max(one.x1, other.x1)
    h = min(one.y2, other.y2) - max(one.y1, other.y1)
    if w <= 0 or h <= 0:
        return 0.0
    return w * h / (one.area + other.area - w * h)


def group_regions(answers: Sequence[Boxes]) -> list[list[Region]]:
    """All boxes, those that mean the same defect together: same class, and IoU >= MATCH_IOU with one of them.

    Linked greedily by falling IoU (ties by place); at most one box of each annotator in a group. Every box
    is in exactly one group; groups are in the order of their first boxes.
    """
    group = {(who, place): [(who, place)] for who, boxes in enumerate(answers) for place in range(len(boxes))}
    for link in sorted(_links(answers), key=lambda k: (-k.iou, k.one, k.other)):
        one, other = group[link.one], group[link.other]
        if {who for who, _ in one}.isdisjoint(who for who, _ in other):
            one += other
            group.update(dict.fromkeys(other, one))
    distinct = {min(members): sorted(members) for members in group.values()}
    return [[answers[who][place] for who, place in distinct[first]] for first in sorted(distinct)]


def agreement(answers: Sequence[Boxes]) -> float | None:
    """How far annotators agree: the mean over all pairs of them of 2 x shared boxes / boxes of both.

    That is the F1 score of one against the other. Two who both drew nothing agree wholly.

    Returns:
        0 to 1; None for fewer than two.
    """
    pairs = list(combinations(answers, 2))
    return sum(_f1(one, other) for one, other in pairs) / len(pairs) if pairs else None


def merge_regions(answers: Sequence[Boxes], keep: Literal["majority", "union"]) -> tuple[Region, ...]:
    """One list of boxes: those that more than half of the annotators drew, or all that anybody drew.

    A group becomes the mean of its boxes. It goes by the pre-annotation that one of them began as.
    """
    least = len(answers) / 2 if keep == "majority" else 0
    return tuple(_mean(group) for group in group_regions(answers) if len(group) > least)


def _links(answers: Sequence[Boxes]) -> Iterator[_Link]:
    for (i, ours), (j, theirs) in combinations(enumerate(answers), 2):
        for a, one in enumerate(ours):
            for b, other in enumerate(theirs):
                if one.label == other.label and (overlap := iou(one.box, other.box)) >= MATCH_IOU:
                    yield _Link(overlap, (i, a), (j, b))


def _f1(one: Boxes, other: Boxes) -> float:
    if not one and not other:
        return 1.0
    shared = sum(len(group) == 2 for group in group_regions((one, other)))
    return 2 * shared / (len(one) + len(other))


def _mean(group: Sequence[Region]) -> Region:
    origins: set[Origin] = {region.origin for region in group}
    shown = next((region for region in group if region.origin != "manual"), group[0])
    corners = zip(*(region.box.corners for region in group), strict=True)
    box = Box(*(sum(values) / len(group) for values in corners))
    return replace(shown, box=box, origin=origins.pop() if len(origins) == 1 else "prediction-changed")
