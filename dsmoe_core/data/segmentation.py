"""Boxes around the shapes of COCO annotations: polygons and run-length encoded masks."""

from __future__ import annotations

from typing import Any

from dsmoe_core.data.import_account import Conversion, Reason
from dsmoe_core.data.label_source import bounds, number
from dsmoe_core.data.set_builder import Corners


class UnusableShape(Exception):  # noqa: N818 - does not leave the readers
    """A shape that gives no box.

    Args:
        reason: why.
        detail: the values that are wrong.
    """

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def segmentation_corners(shape: object, size: tuple[int, int]) -> tuple[Corners, Conversion]:
    """Corners in pixels of the box around a COCO segmentation, and its kind.

    Args:
        shape: a list of polygons, each [x1, y1, x2, y2, ...], or a mask {"size": [height, width],
            "counts": list or compressed text}.
        size: width and height of the image.

    Raises:
        UnusableShape: it is neither, or has no area.
    """
    if isinstance(shape, dict):
        return _mask_corners(shape, size), Conversion.MASK
    if isinstance(shape, list):
        return polygon_corners(_flat_polygons(shape)), Conversion.POLYGON
    raise UnusableShape(Reason.NO_BOX, f"segmentation {shape!r:.60}")


def polygon_corners(polygons: list[list[object]]) -> Corners:
    """Corners of the box around polygons, each a list x1, y1, x2, y2, ... of three points or more.

    Raises:
        UnusableShape: no polygon has three points, or one has something else than numbers.
    """
    points = []
    for polygon in polygons:
        values = [number(v) for v in polygon]
        numbers = [v for v in values if v is not None]
        if len(numbers) != len(values) or len(values) % 2:
            raise UnusableShape(Reason.NOT_NUMBERS, f"polygon {polygon!r:.80}")
        if len(numbers) >= 6:
            points += [(x, y) for x, y in zip(numbers[::2], numbers[1::2], strict=True)]
    if not points:
        raise UnusableShape(Reason.NO_AREA, f"{len(polygons)} polygons with less than three points")
    return bounds(points)


def _flat_polygons(shape: list[Any]) -> list[list[object]]:
    """Polygons as flat lists; some tools write one flat list, or a list of [x, y] points."""
    if not any(isinstance(part, list) for part in shape):
        return [shape]
    parts = [part for part in shape if isinstance(part, list)]
    if all(len(part) == 2 for part in parts):
        return [[value for part in parts for value in part]]
    return parts


def _mask_corners(mask: dict[str, Any], size: tuple[int, int]) -> Corners:
    from pycocotools import mask as masks

    width, height = size
    counts = mask.get("counts")
    if mask.get("size") != [height, width]:
        raise UnusableShape(Reason.WRONG_MASK, f"mask size {mask.get('size')!r:.40}, image {height}, {width}")
    try:
        if isinstance(counts, list):
            if sum(counts) != width * height or min(counts) < 0:
                raise UnusableShape(Reason.WRONG_MASK, f"counts add up to {sum(counts)}")
            encoded = masks.frPyObjects({"size": [height, width], "counts": counts}, height, width)
        elif isinstance(counts, str):
            encoded = {"size": [height, width], "counts": counts.encode("ascii")}
        else:
            raise UnusableShape(Reason.WRONG_MASK, f"counts {counts!r:.40}")
        x, y, w, h = (float(v) for v in masks.toBbox(encoded))
    except (TypeError, ValueError, OverflowError):
        raise UnusableShape(Reason.WRONG_MASK, f"counts {counts!r:.40}") from None
    if not (w and h):
        raise UnusableShape(Reason.NO_AREA, "the mask is empty")
    if x + w > width or y + h > height:
        raise UnusableShape(Reason.WRONG_MASK, "the mask is larger than its image")
    return x, y, x + w, y + h
