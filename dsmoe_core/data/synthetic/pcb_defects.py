"""The six defects of a bare board, each put where it happens in manufacture, as changes to the copper masks.

The box of a defect is that of the pixels it changed with a small margin, as a person would draw it; that of a
missing hole is its pad's, since the pad is what one sees. Lengths are in cells unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from math import cos, hypot, pi, sin

import numpy as np
from PIL import ImageChops, ImageDraw

from dsmoe_core.data.synthetic.board import Board, Pad, Trace
from dsmoe_core.data.synthetic.copper import FINE, BoardMasks, draw_polygon
from dsmoe_core.data.synthetic.rendering import Point
from dsmoe_core.schema import Annotation, Box

CLASSES = ("missing_hole", "mouse_bite", "open_circuit", "short", "spur", "spurious_copper")
_MARGIN = 0.12  # around the changed pixels
_LEAST = 0.62  # least side of a box
_APART = 2.2  # least distance between the centres of two defects
_TRIES = 40


def add_defect(
    name: str, board: Board, masks: BoardMasks, earlier: list[Annotation], rng: np.random.Generator
) -> Annotation | None:
    """Puts one defect on the board, away from earlier ones; None where no place for it was found."""
    for _ in range(_TRIES):
        at = _somewhere(name, board, rng)
        if at is None or any(_near(at.x, at.y, other.box, board.cell) for other in earlier):
            continue
        if isinstance(at, Pad):
            box: Box | None = _drop_hole(at, masks)
        else:
            box = _changed_box(board, masks, _MAKERS[name](board, masks, at, rng))
        if box is not None and box.inside(board.px, board.px, tolerance=0.0):
            return Annotation(box, name)
    return None


class _Place:
    """A point (x, y) on the middle of a trace, its direction (dx, dy) and the trace (None: on no trace)."""

    __slots__ = ("dx", "dy", "trace", "x", "y")

    def __init__(self, x: float, y: float, dx: float, dy: float, trace: Trace | None) -> None:
        self.x, self.y, self.dx, self.dy, self.trace = x, y, dx, dy, trace


# What a maker returns: copper (255) or none (0), and the shapes to draw so; None: not possible here.
Change = tuple[int, list[list[Point]]] | None


def _somewhere(name: str, board: Board, rng: np.random.Generator) -> _Place | Pad | None:
    if name == "missing_hole":
        drilled = [
            p for p in board.pads if p.kind == "round" and p.hole
        ]  # a square one would look like a chip pad
        return drilled[int(rng.integers(len(drilled)))] if drilled else None
    edge = 0.9 * board.cell
    if name == "spurious_copper":
        x, y = rng.uniform(edge, board.px - edge, 2)
        return _Place(float(x), float(y), 1.0, 0.0, None)
    legs = _straight_legs(board)
    if not legs:
        return None
    trace, (x1, y1), (x2, y2) = legs[int(rng.integers(len(legs)))]
    length = hypot(x2 - x1, y2 - y1)
    inset = 0.75 * board.cell / length
    share = float(rng.uniform(inset, 1 - inset))
    x, y = x1 + share * (x2 - x1), y1 + share * (y2 - y1)
    if not (edge < x < board.px - edge and edge < y < board.px - edge):
        return None
    return _Place(x, y, (x2 - x1) / length, (y2 - y1) / length, trace)


def _straight_legs(board: Board) -> list[tuple[Trace, Point, Point]]:
    least = 1.6 * board.cell
    return [
        (trace, a, b)
        for trace in board.traces
        for a, b in zip(trace.points, trace.points[1:], strict=False)
        if hypot(b[0] - a[0], b[1] - a[1]) >= least
    ]


def _near(x: float, y: float, box: Box, cell: float) -> bool:
    return hypot((box.x1 + box.x2) / 2 - x, (box.y1 + box.y2) / 2 - y) < _APART * cell


def _drop_hole(pad: Pad, masks: BoardMasks) -> Box:
    x, y, reach = pad.x * FINE, pad.y * FINE, pad.hole * FINE + 2
    ImageDraw.Draw(masks.holes).rectangle((x - reach, y - reach, x + reach, y + reach), fill=0)
    pad.hole = 0.0
    return Box(
        pad.x - pad.half_width - 1.0,
        pad.y - pad.half_height - 1.0,
        pad.x + pad.half_width + 1.0,
        pad.y + pad.half_height + 1.0,
    )


def _changed_box(board: Board, masks: BoardMasks, change: Change) -> Box | None:
    """Draws a change and returns the box of the pixels that differ afterwards, in image pixels."""
    if change is None:
        return None
    value, shapes = change
    before = masks.copper.copy()
    draw = ImageDraw.Draw(masks.copper)
    for shape in shapes:
        draw_polygon(draw, shape, value)
    bounds = ImageChops.difference(before, masks.copper).getbbox()
    if bounds is None:
        return None
    x1, y1, x2, y2 = (v / FINE for v in bounds)
    margin, least = _MARGIN * board.cell, _LEAST * board.cell
    grow_x = max(margin, (least - (x2 - x1)) / 2)
    grow_y = max(margin, (least - (y2 - y1)) / 2)
    return Box(x1 - grow_x, y1 - grow_y, x2 + grow_x, y2 + grow_y)


def _blob(
    x: float, y: float, along: float, across: float, angle: float, rng: np.random.Generator
) -> list[Point]:
    """An uneven round shape about (x, y) with these half lengths, turned by ``angle``."""
    points = []
    for i, unevenness in enumerate(rng.uniform(0.78, 1.15, 12)):
        turn = 2 * pi * i / 12
        u, v = along * unevenness * cos(turn), across * unevenness * sin(turn)
        points.append((x + u * cos(angle) - v * sin(angle), y + u * sin(angle) + v * cos(angle)))
    return points


def _side(at: _Place, rng: np.random.Generator) -> Point:
    """One of the two directions across the trace."""
    sign = 1.0 if rng.random() < 0.5 else -1.0
    return (-at.dy * sign, at.dx * sign)


def _angle(at: _Place) -> float:
    return float(np.arctan2(at.dy, at.dx))


def _mouse_bite(board: Board, _masks: BoardMasks, at: _Place, rng: np.random.Generator) -> Change:
    """A bite out of one edge, half to three quarters of the width deep: the trace thins but holds."""
    assert at.trace is not None  # noqa: S101 - _somewhere gives a trace for this defect
    nx, ny = _side(at, rng)
    width = at.trace.width
    depth = float(rng.uniform(0.55, 0.7)) * width
    half = float(rng.uniform(0.28, 0.38)) * board.cell
    out = width / 2
    return 0, [_blob(at.x + nx * out, at.y + ny * out, half, depth / 1.05, _angle(at), rng)]


def _open_circuit(board: Board, _masks: BoardMasks, at: _Place, rng: np.random.Generator) -> Change:
    """A gap right through the trace, with uneven ends."""
    assert at.trace is not None  # noqa: S101
    half = float(rng.uniform(0.17, 0.32)) * board.cell
    reach = at.trace.width * 0.62
    nx, ny = -at.dy, at.dx
    ends = []
    for across in (-1.0, -0.35, 0.35, 1.0):
        a, b = rng.uniform(0.75, 1.25, 2) * half
        ends.append((across, float(a), float(b)))
    front = [(at.x + nx * c * reach + at.dx * a, at.y + ny * c * reach + at.dy * a) for c, a, _ in ends]
    back = [(at.x + nx * c * reach - at.dx * b, at.y + ny * c * reach - at.dy * b) for c, _, b in ends]
    return 0, [front + back[::-1]]


def _short(board: Board, masks: BoardMasks, at: _Place, rng: np.random.Generator) -> Change:
    """A bridge from this trace to its neighbour of another net."""
    assert at.trace is not None  # noqa: S101
    nx, ny = _side(at, rng)
    step, gap = board.cell / 16, at.trace.width / 2
    while masks.net_at(at.x + nx * gap, at.y + ny * gap) == at.trace.net:
        gap += step
    begin = gap
    while masks.net_at(at.x + nx * gap, at.y + ny * gap) == -1 and gap < 1.9 * board.cell:
        gap += step
    other = masks.net_at(at.x + nx * gap, at.y + ny * gap)
    if masks.is_pad(at.x + nx * gap, at.y + ny * gap):
        return None  # a bridge to a pad looks like a trace that belongs there
    if other is None or other in (-1, at.trace.net) or not 0.3 * board.cell < gap - begin < 1.3 * board.cell:
        return None
    half = float(rng.uniform(0.14, 0.24)) * board.cell
    near, far = [], []
    for share in (0.0, 0.33, 0.66, 1.0):
        reach = begin - 0.12 * board.cell + share * (gap - begin + 0.24 * board.cell)
        flare = 1.25 if share in (0.0, 1.0) else 1.0
        a, b = rng.uniform(0.75, 1.2, 2) * half * flare
        x, y = at.x + nx * reach, at.y + ny * reach
        near.append((x + at.dx * float(a), y + at.dy * float(a)))
        far.append((x - at.dx * float(b), y - at.dy * float(b)))
    return 255, [near + far[::-1]]


def _spur(board: Board, masks: BoardMasks, at: _Place, rng: np.random.Generator) -> Change:
    """A tongue of copper out of one edge that ends in the open."""
    assert at.trace is not None  # noqa: S101
    nx, ny = _side(at, rng)
    edge = at.trace.width / 2
    length = float(rng.uniform(0.36, 0.5)) * board.cell
    tip_x, tip_y = at.x + nx * (edge + length), at.y + ny * (edge + length)
    if not masks.is_clear(tip_x, tip_y, 0.24 * board.cell, at.trace.net):
        return None
    half, lean = float(rng.uniform(0.17, 0.26)) * board.cell, float(rng.uniform(-0.15, 0.15)) * board.cell
    foot_x, foot_y = at.x + nx * edge * 0.5, at.y + ny * edge * 0.5
    tongue = [
        (foot_x + at.dx * half * 1.3, foot_y + at.dy * half * 1.3),
        (tip_x + at.dx * (lean + half * 0.55), tip_y + at.dy * (lean + half * 0.55)),
        (tip_x + nx * half * 0.4 + at.dx * lean, tip_y + ny * half * 0.4 + at.dy * lean),
        (tip_x + at.dx * (lean - half * 0.55), tip_y + at.dy * (lean - half * 0.55)),
        (foot_x - at.dx * half * 1.3, foot_y - at.dy * half * 1.3),
    ]
    return 255, [tongue]


def _spurious_copper(board: Board, masks: BoardMasks, at: _Place, rng: np.random.Generator) -> Change:
    """An island of copper that touches nothing."""
    half = float(rng.uniform(0.26, 0.45)) * board.cell
    if not masks.is_clear(at.x, at.y, half * 1.15 + 0.17 * board.cell, -1):
        return None
    slim = float(rng.uniform(0.65, 1.0))
    return 255, [_blob(at.x, at.y, half, half * slim, float(rng.uniform(0, pi)), rng)]


_MAKERS: dict[str, Callable[[Board, BoardMasks, _Place, np.random.Generator], Change]] = {
    "mouse_bite": _mouse_bite,
    "open_circuit": _open_circuit,
    "short": _short,
    "spur": _spur,
    "spurious_copper": _spurious_copper,
}
