"""Renders bare circuit boards with known defects."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from dsmoe_core.data.synthetic.board import Board, random_board
from dsmoe_core.data.synthetic.copper import FINE, BoardMasks, render_masks
from dsmoe_core.data.synthetic.pcb_defects import CLASSES, add_defect
from dsmoe_core.data.synthetic.rendering import (
    Colour,
    FloatImage,
    SyntheticImage,
    blend,
    illumination,
    simulate_camera,
)
from dsmoe_core.schema import Annotation

__all__ = ["CLASSES", "render"]
_DEFECT_FREE_SHARE = 0.12  # share of images without a defect


class _Palette(NamedTuple):
    """Colours of one kind of board; ``conductor`` is copper below the solder mask, ``print`` the legend."""

    laminate: Colour
    conductor: Colour
    pad: Colour
    hole: Colour
    print: Colour


_PALETTES = (
    _Palette((16, 72, 44), (46, 128, 72), (206, 190, 138), (22, 24, 22), (226, 232, 224)),  # green, gold
    _Palette((22, 88, 58), (62, 148, 92), (198, 202, 204), (28, 30, 28), (230, 232, 228)),  # green, tin
    _Palette((20, 48, 104), (44, 92, 160), (208, 192, 142), (18, 20, 28), (228, 230, 236)),  # blue
    _Palette((112, 24, 26), (170, 58, 50), (206, 204, 200), (30, 18, 18), (236, 230, 226)),  # red
    _Palette((128, 112, 72), (196, 122, 74), (212, 142, 92), (34, 28, 22), (236, 232, 220)),  # no solder mask
)


def render(seed: int, px: int) -> SyntheticImage:
    """Render one board of px x px pixels; equal arguments give equal images.

    Most boards have 2 to 6 defects, about one in eight has none. Classes are those of
    ``pcb_defects.CLASSES``.
    """
    rng = np.random.default_rng(seed)
    board = random_board(rng, px)
    masks = render_masks(board)
    annotations: list[Annotation] = []
    count = 0 if rng.random() < _DEFECT_FREE_SHARE else int(rng.integers(2, 7))
    for index in rng.permutation(np.tile(np.arange(len(CLASSES)), 2)):
        if len(annotations) == count:
            break
        added = add_defect(CLASSES[index], board, masks, annotations, rng)
        if added is not None:
            annotations.append(added)
    return SyntheticImage(_render(board, masks, rng), tuple(annotations))


def _render(board: Board, masks: BoardMasks, rng: np.random.Generator) -> Image.Image:
    palette = _PALETTES[int(rng.choice(len(_PALETTES), p=[0.34, 0.24, 0.14, 0.1, 0.18]))]
    copper, pads, holes = (_coverage(mask) for mask in (masks.copper, masks.pads, masks.holes))
    relief = _relief(copper, float(rng.uniform(10, 22)))
    laminate = np.array(palette.laminate, np.float32) + _grain(board.px, rng, 5.0)
    image = blend(laminate, palette.conductor, copper)
    image = blend(image, palette.pad, np.minimum(pads, copper)) + relief
    if rng.random() < 0.7:
        image = blend(image, palette.print, _outlines(board) * (1 - copper) * np.float32(0.85))
    image = blend(image, palette.hole, holes)
    image *= illumination(board.px, rng)
    return simulate_camera(image, rng)


def _coverage(mask: Image.Image) -> FloatImage:
    """Coverage of each image pixel by a supersampled mask, (px, px, 1), 0 to 1."""
    return np.asarray(mask.reduce(FINE), dtype=np.float32)[..., None] / np.float32(255)


def _relief(copper: FloatImage, strength: float) -> FloatImage:
    """Light and dark edges of conductors under light from the upper left, (px, px, 1)."""
    edge = np.zeros_like(copper)
    edge[1:, 1:] = copper[1:, 1:] - copper[:-1, :-1]
    return edge * np.float32(strength)


def _grain(px: int, rng: np.random.Generator, strength: float) -> FloatImage:
    """Weave and blotches of the laminate, (px, px, 1), close to zero."""
    coarse = Image.fromarray(rng.normal(0, 1, (max(px // 12, 2),) * 2).astype(np.float32))
    blotches = np.asarray(coarse.resize((px, px), Image.Resampling.BILINEAR), dtype=np.float32)
    lines = np.sin(np.arange(px, dtype=np.float32) * np.float32(2 * np.pi / 4.3 * 320 / px))
    weave = lines[:, None] * 0.3 + lines[None, :] * 0.3
    grain: FloatImage = ((blotches + weave) * strength)[..., None].astype(np.float32)
    return grain


def _outlines(board: Board) -> FloatImage:
    """Coverage by the printed frames of parts, (px, px, 1), 0 to 1."""
    image = Image.new("L", (board.px * FINE, board.px * FINE), 0)
    draw_on = ImageDraw.Draw(image)
    for frame in board.outlines:
        corners = tuple(v * board.cell * FINE for v in frame)
        draw_on.rectangle(corners, outline=255, width=max(round(1.1 * FINE * board.px / 320), 1))
    return _coverage(image)
