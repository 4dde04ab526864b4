"""Converts boxes from the stored pixels of an image file to the upright image, by its EXIF orientation."""

from __future__ import annotations

from collections.abc import Callable

from dsmoe_core.schema import Box

TRANSPOSED = (5, 6, 7, 8)
"""Orientations that exchange width and height."""

Point = tuple[float, float]

# From a point of the stored image of width w and height h to the same point of the upright image.
_TO_UPRIGHT: dict[int, Callable[[float, float, float, float], Point]] = {
    1: lambda x, y, _w, _h: (x, y),
    2: lambda x, y, w, _h: (w - x, y),
    3: lambda x, y, w, h: (w - x, h - y),
    4: lambda x, y, _w, h: (x, h - y),
    5: lambda x, y, _w, _h: (y, x),
    6: lambda x, y, _w, h: (h - y, x),
    7: lambda x, y, w, h: (h - y, w - x),
    8: lambda x, y, w, _h: (y, w - x),
}


def upright_box(box: Box, orientation: int, width: int, height: int) -> Box:
    """The box in the upright image.

    Args:
        box: in the stored pixels.
        orientation: EXIF orientation of the file, 1 to 8.
        width, height: of the stored image, before the rotation.
    """
    turn = _TO_UPRIGHT[orientation]
    (xa, ya), (xb, yb) = turn(box.x1, box.y1, width, height), turn(box.x2, box.y2, width, height)
    return Box(min(xa, xb), min(ya, yb), max(xa, xb), max(ya, yb))
