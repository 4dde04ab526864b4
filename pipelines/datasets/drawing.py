"""Draws labelled boxes on an image."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageColor, ImageDraw, ImageFont

from dsmoe_core.schema import Box


class BoxOverlay(NamedTuple):
    """A box to draw with its text.

    Attributes:
        colour: ``#rrggbb``.
        dashed: a dashed outline with the text above the box; otherwise a solid one with the text below.
    """

    box: Box
    text: str
    colour: str
    dashed: bool


def draw_boxes(path: Path, overlays: Sequence[BoxOverlay], width: int) -> bytes:
    """A JPEG of the image with all boxes; they are drawn after scaling, so that lines and text stay legible.

    Args:
        path: the image file.
        overlays: later ones are drawn over earlier ones.
        width: width of the result in pixels.

    Raises:
        OSError: the image cannot be read.
    """
    with Image.open(path) as opened:
        scale = width / opened.width
        size = (width, max(1, round(opened.height * scale)))
        image = opened.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=16)
    for overlay in overlays:
        corners = _scaled(overlay.box, scale)
        if overlay.dashed:
            _draw_dashed(draw, corners, overlay.colour)
        else:
            draw.rectangle(corners, outline="white", width=5)
            draw.rectangle(_inset(corners, 1), outline=overlay.colour, width=3)
        _draw_text(draw, corners, overlay.text, overlay.colour, font, size, above=overlay.dashed)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


Corners = tuple[float, float, float, float]


def _scaled(box: Box, scale: float) -> Corners:
    x1, y1, x2, y2 = (value * scale for value in box.corners)
    return (x1, y1, max(x2, x1 + 4), max(y2, y1 + 4))  # a box of one pixel stays visible


def _inset(corners: Corners, by: float) -> Corners:
    x1, y1, x2, y2 = corners
    return (x1 + by, y1 + by, max(x2 - by, x1 + by), max(y2 - by, y1 + by))


def _draw_dashed(
    draw: ImageDraw.ImageDraw, corners: Corners, colour: str, dash: float = 8, gap: float = 5
) -> None:
    """A dashed outline on a white one, visible on any background."""
    x1, y1, x2, y2 = corners
    draw.rectangle(corners, outline="white", width=1)
    for left in _steps(x1, x2, dash + gap):
        for y in (y1, y2):
            draw.line((left, y, min(left + dash, x2), y), fill=colour, width=3)
    for top in _steps(y1, y2, dash + gap):
        for x in (x1, x2):
            draw.line((x, top, x, min(top + dash, y2)), fill=colour, width=3)


def _steps(start: float, end: float, step: float) -> list[float]:
    return [start + step * i for i in range(int((end - start) // step) + 1)]


def _draw_text(
    draw: ImageDraw.ImageDraw,
    corners: Corners,
    text: str,
    colour: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    size: tuple[int, int],
    *,
    above: bool,
) -> None:
    """Text on a plate of the box's colour, kept inside the image.

    Args:
        size: (width, height) of the image in pixels.
    """
    _, _, width, height = draw.textbbox((0, 0), text, font=font)
    x = min(max(corners[0], 0), max(size[0] - width - 8, 0))
    y = corners[1] - height - 6 if above else corners[3] + 1
    if y < 0 or y + height + 6 > size[1]:
        y = corners[3] + 1 if above else corners[1] - height - 6
    y = min(max(y, 0), max(size[1] - height - 6, 0))
    draw.rectangle((x, y, x + width + 8, y + height + 5), fill=colour)
    draw.text((x + 4, y + 1), text, fill=_text_colour(colour), font=font)


def _text_colour(background: str) -> str:
    """Black or white, whichever has more contrast with the background (ITU-R BT.601's luma)."""
    red, green, blue = ImageColor.getrgb(background)[:3]
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "white"
