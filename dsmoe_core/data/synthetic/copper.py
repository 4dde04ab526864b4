"""Renders the copper and the holes of a board as masks, supersampled by FINE."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dsmoe_core.data.synthetic.board import Board, Pad
from dsmoe_core.data.synthetic.rendering import Point

FINE = 3
"""Mask pixels per image pixel along each axis."""


@dataclass(slots=True)
class BoardMasks:
    """Masks of a board at FINE times the image's resolution; ``L`` images of 0 or 255.

    Attributes:
        copper: conductors including pads, before drilling.
        pads: areas free of solder mask.
        holes: drilled areas.
        nets: net number + 1 of the copper at each pixel; 0: no copper.
    """

    copper: Image.Image
    pads: Image.Image
    holes: Image.Image
    nets: NDArray[np.int32]

    def net_at(self, x: float, y: float) -> int | None:
        """The net at a point in image pixels; -1: no copper, None: outside the image."""
        row, column = int(y * FINE), int(x * FINE)
        if not (0 <= row < self.nets.shape[0] and 0 <= column < self.nets.shape[1]):
            return None
        return int(self.nets[row, column]) - 1

    def is_pad(self, x: float, y: float) -> bool:
        """Whether a point, or a point within one image pixel of it, is on a pad."""
        column, row = int(x * FINE), int(y * FINE)
        window = self.pads.crop((column - FINE, row - FINE, column + FINE + 1, row + FINE + 1))
        return window.getbbox() is not None

    def is_clear(self, x: float, y: float, radius: float, net: int) -> bool:
        """Whether a square is inside the image and has no copper except that of ``net`` (-1: none at all).

        Args:
            x, y: centre in image pixels.
            radius: half of the square's side.
        """
        side = self.nets.shape[0]
        x1, y1 = int((x - radius) * FINE), int((y - radius) * FINE)
        x2, y2 = int((x + radius) * FINE) + 1, int((y + radius) * FINE) + 1
        if x1 < 0 or y1 < 0 or x2 > side or y2 > side:
            return False
        window = self.nets[y1:y2, x1:x2]
        return bool(((window == 0) | (window == net + 1)).all())


def render_masks(board: Board) -> BoardMasks:
    """The masks of a board without defects."""
    side = board.px * FINE
    nets = Image.new("I", (side, side), 0)
    pads, holes = (Image.new("L", (side, side), 0) for _ in range(2))
    on_nets, on_pads, on_holes = ImageDraw.Draw(nets), ImageDraw.Draw(pads), ImageDraw.Draw(holes)
    for trace in board.traces:
        _draw_line(on_nets, trace.points, trace.width, trace.net + 1)
    for pad in board.pads:
        _draw_pad(on_nets, pad, pad.net + 1)
        _draw_pad(on_pads, pad, 255)
        if pad.hole:
            draw_disc(on_holes, pad.x, pad.y, pad.hole, 255)
    numbers = np.asarray(nets, dtype=np.int32)
    copper = Image.fromarray(((numbers > 0) * 255).astype(np.uint8))
    return BoardMasks(copper, pads, holes, numbers)


def draw_disc(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, value: int) -> None:
    """Draw a filled disc; centre and radius in image pixels."""
    x, y, radius = x * FINE, y * FINE, radius * FINE
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=value)


def draw_polygon(draw: ImageDraw.ImageDraw, points: list[Point], value: int) -> None:
    """Draw a filled polygon; corners in image pixels."""
    draw.polygon([(x * FINE, y * FINE) for x, y in points], fill=value)


def _draw_line(draw: ImageDraw.ImageDraw, points: list[Point], width: float, value: int) -> None:
    draw.line([(x * FINE, y * FINE) for x, y in points], fill=value, width=round(width * FINE))
    for x, y in points:
        draw_disc(draw, x, y, width / 2, value)


def _draw_pad(draw: ImageDraw.ImageDraw, pad: Pad, value: int) -> None:
    x, y, w, h = (v * FINE for v in (pad.x, pad.y, pad.half_width, pad.half_height))
    corners = (x - w, y - h, x + w, y + h)
    if pad.kind in ("round", "via"):
        draw.ellipse(corners, fill=value)
    else:
        draw.rectangle(corners, fill=value)
