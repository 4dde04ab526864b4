"""An image with boxes and words on it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageColor, ImageDraw, ImageFont

from dsmoe_core.schema import Box


class BoxOverlay(NamedTuple):
    """A box to draw.

    Attributes:
        colour: ``#rrggbb``.
        broken: a broken line with its words above the box; else a whole one with its words below.
    """

    box: Box
    text: str
    colour: str
    dashed: bool


def draw_boxes(path: Path, marks: Sequence[BoxOverlay], width: int) -> bytes:
    """A JPEG of this width with all boxes, drawn after scaling so that lines and words stay legible.

    Args:
        marks: later ones lie on top.
        width: pixels.

    Raises:
        OSError: the image cannot be read.
    """
    with Image.open(path) as opened:
        scale = width / opened.width
        size = (width, max(1, round(opened.height * scale)))
        image = opened.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=16)
    for mark in marks:
        corners = _scaled(mark.box, scale)
        if mark.dashed:
            _broken(pen, corners, mark.colour)
        else:
            pen.rectangle(corners, outline="white", width=5)
            pen.rectangle(_inset(corners, 1), outline=mark.colour, width=3)
        _word(pen, corners, mark.text, mark.colour, font, size, above=mark.dashed)
    answer = io.BytesIO()
    image.save(answer, "JPEG", quality=88)
    return answer.getvalue()


Corners = tuple[float, float, float, float]


def _scaled(box: Box, scale: float) -> Corners:
    x1, y1, x2, y2 = (value * scale for value in box.corners)
    return (x1, y1, max(x2, x1 + 4), max(y2, y1 + 4))  # a box of a pixel is still to be seen


def _inset(corners: Corners, by: float) -> Corners:
    x1, y1, x2, y2 = corners
    return (x1 + by, y1 + by, max(x2 - by, x1 + by), max(y2 - by, y1 + by))


def _broken(pen: ImageDraw.ImageDraw, corners: Corners, colour: str, dash: float = 8, gap: float = 5) -> None:
    """White below, so that the line is seen on any ground."""
    x1, y1, x2, y2 = corners
    pen.rectangle(corners, outline="white", width=1)
    for left in _steps(x1, x2, dash + gap):
        for y in (y1, y2):
            pen.line((left, y, min(left + dash, x2), y), fill=colour, width=3)
    for top in _steps(y1, y2, dash + gap):
        for x in (x1, x2):
            pen.line((x, top, x, min(top + dash, y2)), fill=colour, width=3)


def _steps(start: float, end: float, step: float) -> list[float]:
    return [start + step * i for i in range(int((end - start) // step) + 1)]


def _word(
    pen: ImageDraw.ImageDraw,
    corners: Corners,
    text: str,
    colour: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    size: tuple[int, int],
    *,
    above: bool,
) -> None:
    """A label on a plate of the class's colour, kept inside the image."""
    _, _, wide, high = pen.textbbox((0, 0), text, font=font)
    x = min(max(corners[0], 0), max(size[0] - wide - 8, 0))
    y = corners[1] - high - 6 if above else corners[3] + 1
    if y < 0 or y + high + 6 > size[1]:
        y = corners[3] + 1 if above else corners[1] - high - 6
    y = min(max(y, 0), max(size[1] - high - 6, 0))
    pen.rectangle((x, y, x + wide + 8, y + high + 5), fill=colour)
    pen.text((x + 4, y + 1), text, fill=_ink(colour), font=font)


def _ink(ground: str) -> str:
    """Black or white, whichever is easier to read on a colour (ITU-R BT.601's luma)."""
    red, green, blue = ImageColor.getrgb(ground)[:3]
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "white"
