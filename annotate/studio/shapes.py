"""Boxes of the region shapes of Label Studio: rectangle, ellipse, polygon and brush mask.

All coordinates are percentages of the image's width and height. Source: the region models of Label Studio's
editor (web/libs/editor/src/regions).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import cos, hypot, isfinite, radians, sin
from typing import Any, Final, NamedTuple

import numpy as np

from dsmoe_core.data.import_account import Conversion, Reason
from dsmoe_core.errors import BoxError
from dsmoe_core.schema import Box

MIN_SIZE_PX: Final = 0.01
"""A region that is narrower or lower has no area."""
_REMEDY = "Correct or remove it in Label Studio."
_MASK_CHANNELS = 4  # a brush mask is RGBA, of which only the alpha channel has content


class RegionError(BoxError):
    """A region that has no box.

    Attributes:
        reason: why, for the account of a harvest.
    """

    def __init__(self, problem: str, reason: Reason) -> None:
        super().__init__(problem, _REMEDY)
        self.reason = reason


class Outline(NamedTuple):
    """Smallest axis-aligned rectangle around a region, in pixels; it may reach over the image.

    Attributes:
        conversion: how it was obtained; None if the region is such a rectangle.
    """

    left: float
    top: float
    right: float
    bottom: float
    conversion: Conversion | None = None

    def box(self, width: int, height: int) -> Box:
        """The part inside an image of this size.

        Raises:
            RegionError: the outline has no area, or lies outside the image.
        """
        corners = ", ".join(f"{value:g}" for value in self[:4])
        if not (self.right - self.left >= MIN_SIZE_PX and self.bottom - self.top >= MIN_SIZE_PX):
            raise RegionError(f"its corners are ({corners}); expected an area", Reason.NO_AREA)
        left, top = max(self.left, 0.0), max(self.top, 0.0)
        right, bottom = min(self.right, float(width)), min(self.bottom, float(height))
        if right - left < MIN_SIZE_PX or bottom - top < MIN_SIZE_PX:
            problem = f"its corners are ({corners}); the image has {width} x {height} px"
            raise RegionError(problem, Reason.OUTSIDE_IMAGE)
        return Box(left, top, right, bottom)


def outline(result: Mapping[str, Any], width: int, height: int) -> Outline:
    """Rectangle around the shape of a Label Studio result.

    Args:
        width, height: of the image, in pixels.

    Raises:
        RegionError: the shape is not one of ``SHAPES``, or its values are wrong.
    """
    value = result.get("value")
    if not isinstance(value, Mapping):
        raise RegionError(f"its value is {value!r}; expected an object", Reason.NOT_AN_ENTRY)
    shape = str(result.get("type")).removesuffix("labels") or _shape_of(value)
    if shape not in SHAPES:
        raise RegionError(f"it is a {shape}; expected one of {', '.join(SHAPES)}", Reason.NO_BOX)
    return SHAPES[shape](value, width, height)


def _shape_of(value: Mapping[str, Any]) -> str:
    """Shape of a region whose type is ``labels``, by the keys of its value."""
    for key, shape in (
        ("points", "polygon"),
        ("rle", "brush"),
        ("radiusX", "ellipse"),
        ("width", "rectangle"),
    ):
        if key in value:
            return shape
    return "region without a shape"


def _rectangle(value: Mapping[str, Any], width: int, height: int) -> Outline:
    """Rectangle around a rectangle, which Label Studio rotates clockwise about its first corner."""
    left, top = _number(value, "x") * width / 100, _number(value, "y") * height / 100
    w, h = _number(value, "width") * width / 100, _number(value, "height") * height / 100
    angle = _angle(value)
    if angle == 0:
        turned = Conversion.TURNED if w < 0 or h < 0 else None
        return Outline(*_ordered(left, left + w, top, top + h), turned)
    if w == 0 or h == 0:
        raise RegionError(f"its size is {w:g} x {h:g} px; expected an area", Reason.NO_AREA)
    corners = [
        (dx * cos(angle) - dy * sin(angle), dx * sin(angle) + dy * cos(angle))
        for dx in (0, w)
        for dy in (0, h)
    ]
    xs, ys = [left + x for x, _ in corners], [top + y for _, y in corners]
    return Outline(min(xs), min(ys), max(xs), max(ys), Conversion.ROTATED)


def _ellipse(value: Mapping[str, Any], width: int, height: int) -> Outline:
    """Rectangle around an ellipse, which Label Studio rotates clockwise about its centre."""
    x, y = _number(value, "x") * width / 100, _number(value, "y") * height / 100
    a, b = _number(value, "radiusX") * width / 100, _number(value, "radiusY") * height / 100
    if a == 0 or b == 0:
        raise RegionError(f"its radii are {a:g} and {b:g} px; expected an area", Reason.NO_AREA)
    angle = _angle(value)
    across = hypot(a * cos(angle), b * sin(angle))
    down = hypot(a * sin(angle), b * cos(angle))
    return Outline(x - across, y - down, x + across, y + down, Conversion.ELLIPSE)


def _polygon(value: Mapping[str, Any], width: int, height: int) -> Outline:
    """Rectangle around a closed polygon of at least three points."""
    points = value.get("points")
    if not isinstance(points, list) or not all(isinstance(p, list) and len(p) == 2 for p in points):
        raise RegionError(f"its points are {points!r}; expected a list of [x, y]", Reason.NOT_NUMBERS)
    if value.get("closed") is False:
        raise RegionError(f"it is a polygon of {len(points)} points that is not closed", Reason.NOT_CLOSED)
    xs = [_finite(x, "x") * width / 100 for x, _ in points]
    ys = [_finite(y, "y") * height / 100 for _, y in points]
    if len(set(zip(xs, ys, strict=True))) < 3:
        raise RegionError(f"it is a polygon of {len(points)} points; expected three or more", Reason.NO_AREA)
    return Outline(min(xs), min(ys), max(xs), max(ys), Conversion.POLYGON)


def _brush(value: Mapping[str, Any], width: int, height: int) -> Outline:
    """Rectangle around a brush mask in one part. Several parts may be several defects."""
    from scipy import ndimage

    mask = _decoded_mask(value.get("rle"), width, height)
    parts, count = ndimage.label(mask, structure=np.ones((3, 3)))
    if count == 0:
        raise RegionError("its mask is empty", Reason.NO_AREA)
    if count > 1:
        raise RegionError(f"its mask has {count} parts; expected one", Reason.SEVERAL_PARTS)
    rows, columns = ndimage.find_objects(parts)[0]
    left, top, right, bottom = map(float, (columns.start, rows.start, columns.stop, rows.stop))
    return Outline(left, top, right, bottom, Conversion.MASK)


def _decoded_mask(rle: object, width: int, height: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Mask (height, width) from Label Studio's run-length code, a list of bytes.

    Raises:
        RegionError: the code is damaged, or of an image of another size.
    """
    from label_studio_sdk.converter.brush import decode_rle

    expected = _MASK_CHANNELS * width * height
    try:
        code = bytes(rle) if isinstance(rle, list) else b""
        size = int.from_bytes(code[:4], "big")  # checked first: it is also the size of the array
        values = decode_rle(code) if size == expected else None
    except (ValueError, TypeError, IndexError) as error:
        raise RegionError("its mask cannot be decoded", Reason.WRONG_MASK) from error
    if values is None:
        raise RegionError(f"its mask has {size} values; expected {expected}", Reason.WRONG_MASK)
    return np.asarray(values.reshape(height, width, _MASK_CHANNELS)[:, :, 3] > 0)


def _ordered(x1: float, x2: float, y1: float, y2: float) -> tuple[float, float, float, float]:
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def _angle(value: Mapping[str, Any]) -> float:
    """Rotation in radians; 0 where the value has none."""
    rotation = value.get("rotation")
    return radians(_finite(rotation, "rotation")) if rotation else 0.0


def _number(value: Mapping[str, Any], name: str) -> float:
    return _finite(value.get(name), name)


def _finite(number: object, name: str) -> float:
    """The number. The server does not validate what other programs store.

    Raises:
        RegionError: it is missing, not a number, or not finite.
    """
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise RegionError(f"its {name} is {number!r}; expected a number", Reason.NOT_NUMBERS)
    if not isfinite(number):
        raise RegionError(f"its {name} is {number!r}; expected a finite number", Reason.NOT_FINITE)
    return number


SHAPES: Final[Mapping[str, Callable[[Mapping[str, Any], int, int], Outline]]] = {
    "rectangle": _rectangle,
    "ellipse": _ellipse,
    "polygon": _polygon,
    "brush": _brush,
}
"""The shapes that have a box, by Label Studio's name."""
