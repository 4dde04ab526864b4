"""The six defects of a bare board as changes to the copper masks, at places where they occur in manufacture.

The box of a defect is the bounding box of the changed pixels with a small margin, as a person would draw it;
the box of a missing hole is that of its pad. Lengths are in cells unless stated otherwise.
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
_MIN_BOX_SIDE = 0.62
_MIN_DISTANCE = 2.2  # between the centres of two defects
_TRIES = 40


def add_defect(
    name: str, board: Board, masks: BoardMasks, earlier: list[Annotation], rng: np.random.Generator
) -> Annotation | None:
    """Add one defect to the masks, away from earlier ones; None if no place for it was found."""
    for _ in range(_TRIES):
        site = _random_site(name, board, rng)
        if site is None or any(_is_near(site.x, site.y, other.box, board.cell) for other in earlier):
            continue
        if isinstance(site, Pad):
            box: Box | None = _remove_hole(site, masks)
        else:
            box = _changed_box(board, masks, _SHAPES[name](board, masks, site, rng))
        if box is not None and box.inside(board.px, board.px, tolerance=0.0):
            return Annotation(box, name)
    return None


class _TraceSite:
    """A point on the centre line of a trace and the unit direction there; trace None: a free point."""

    __slots__ = ("dx", "dy", "trace", "x", "y")

    def __init__(self, x: float, y: float, dx: float, dy: float, trace: Trace | None) -> None:
        self.x, self.y, self.dx, self.dy, self.trace = x, y, dx, dy, trace


_Change = tuple[int, list[list[Point]]] | None
"""Mask value to draw (255: copper, 0: none) and polygons; None if the defect does not fit at the site."""


def _random_site(name: str, board: Board, rng: np.random.Generator) -> _TraceSite | Pad | None:
    if name == "missing_hole":
        drilled = [
            p for p in board.pads if p.kind == "round" and p.hole
        ]  # a square pad without a hole looks like a chip pad
        return drilled[int(rng.integers(len(drilled)))] if drilled else None
    border = 0.9 * board.cell
    if name == "spurious_copper":
        x, y = rng.uniform(border, board.px - border, 2)
        return _TraceSite(float(x), float(y), 1.0, 0.0, None)
    segments = _straight_segments(board)
    if not segments:
        return None
    trace, (x1, y1), (x2, y2) = segments[int(rng.integers(len(segments)))]
    length = hypot(x2 - x1, y2 - y1)
    inset = 0.75 * board.cell / length
    share = float(rng.uniform(inset, 1 - inset))
    x, y = x1 + share * (x2 - x1), y1 + share * (y2 - y1)
    if not (border < x < board.px - border and border < y < board.px - border):
        return None
    return _TraceSite(x, y, (x2 - x1) / length, (y2 - y1) / length, trace)


def _straight_segments(board: Board) -> list[tuple[Trace, Point, Point]]:
    min_length = 1.6 * board.cell
    return [
        (trace, a, b)
        for trace in board.traces
        for a, b in zip(trace.points, trace.points[1:], strict=False)
        if hypot(b[0] - a[0], b[1] - a[1]) >= min_length
    ]


def _is_near(x: float, y: float, box: Box, cell: float) -> bool:
    return hypot((box.x1 + box.x2) / 2 - x, (box.y1 + box.y2) / 2 - y) < _MIN_DISTANCE * cell


def _remove_hole(pad: Pad, masks: BoardMasks) -> Box:
    x, y, reach = pad.x * FINE, pad.y * FINE, pad.hole * FINE + 2
    ImageDraw.Draw(masks.holes).rectangle((x - reach, y - reach, x + reach, y + reach), fill=0)
    pad.hole = 0.0
    return Box(
        pad.x - pad.half_width - 1.0,
        pad.y - pad.half_height - 1.0,
        pad.x + pad.half_width + 1.0,
        pad.y + pad.half_height + 1.0,
    )


def _changed_box(board: Board, masks: BoardMasks, change: _Change) -> Box | None:
    """Draw a change on the copper mask and return the box of the pixels that differ, in image pixels."""
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
    margin, min_side = _MARGIN * board.cell, _MIN_BOX_SIDE * board.cell
    margin_x = max(margin, (min_side - (x2 - x1)) / 2)
    margin_y = max(margin, (min_side - (y2 - y1)) / 2)
    return Box(x1 - margin_x, y1 - margin_y, x2 + margin_x, y2 + margin_y)


def _blob(
    x: float, y: float, along: float, across: float, angle: float, rng: np.random.Generator
) -> list[Point]:
    """An irregular ellipse around (x, y) with these semi-axes, rotated by ``angle``."""
    points = []
    for i, unevenness in enumerate(rng.uniform(0.78, 1.15, 12)):
        phase = 2 * pi * i / 12
        u, v = along * unevenness * cos(phase), across * unevenness * sin(phase)
        points.append((x + u * cos(angle) - v * sin(angle), y + u * sin(angle) + v * cos(angle)))
    return points


def _random_normal(site: _TraceSite, rng: np.random.Generator) -> Point:
    """One of the two unit vectors normal to the trace."""
    sign = 1.0 if rng.random() < 0.5 else -1.0
    return (-site.dy * sign, site.dx * sign)


def _angle(site: _TraceSite) -> float:
    return float(np.arctan2(site.dy, site.dx))


def _mouse_bite(board: Board, _masks: BoardMasks, site: _TraceSite, rng: np.random.Generator) -> _Change:
    """A bite out of one edge of a trace, half to three quarters of its width deep; the trace is not cut."""
    assert site.trace is not None  # noqa: S101 - _random_site gives a trace for this defect
    nx, ny = _random_normal(site, rng)
    width = site.trace.width
    depth = float(rng.uniform(0.55, 0.7)) * width
    half = float(rng.uniform(0.28, 0.38)) * board.cell
    edge = width / 2
    return 0, [_blob(site.x + nx * edge, site.y + ny * edge, half, depth / 1.05, _angle(site), rng)]


def _open_circuit(board: Board, _masks: BoardMasks, site: _TraceSite, rng: np.random.Generator) -> _Change:
    """A gap across the trace, with uneven ends."""
    assert site.trace is not None  # noqa: S101
    half = float(rng.uniform(0.17, 0.32)) * board.cell
    reach = site.trace.width * 0.62
    nx, ny = -site.dy, site.dx
    ends = []
    for across in (-1.0, -0.35, 0.35, 1.0):
        a, b = rng.uniform(0.75, 1.25, 2) * half
        ends.append((across, float(a), float(b)))
    front = [
        (site.x + nx * c * reach + site.dx * a, site.y + ny * c * reach + site.dy * a) for c, a, _ in ends
    ]
    back = [
        (site.x + nx * c * reach - site.dx * b, site.y + ny * c * reach - site.dy * b) for c, _, b in ends
    ]
    return 0, [front + back[::-1]]


def _short(board: Board, masks: BoardMasks, site: _TraceSite, rng: np.random.Generator) -> _Change:
    """A copper bridge from this trace to a neighbouring one of another net."""
    assert site.trace is not None  # noqa: S101
    nx, ny = _random_normal(site, rng)
    step, gap = board.cell / 16, site.trace.width / 2
    while masks.net_at(site.x + nx * gap, site.y + ny * gap) == site.trace.net:
        gap += step
    start = gap
    while masks.net_at(site.x + nx * gap, site.y + ny * gap) == -1 and gap < 1.9 * board.cell:
        gap += step
    other = masks.net_at(site.x + nx * gap, site.y + ny * gap)
    if masks.is_pad(site.x + nx * gap, site.y + ny * gap):
        return None  # a bridge to a pad looks like a regular trace
    if (
        other is None
        or other in (-1, site.trace.net)
        or not 0.3 * board.cell < gap - start < 1.3 * board.cell
    ):
        return None
    half = float(rng.uniform(0.14, 0.24)) * board.cell
    near, far = [], []
    for share in (0.0, 0.33, 0.66, 1.0):
        reach = start - 0.12 * board.cell + share * (gap - start + 0.24 * board.cell)
        flare = 1.25 if share in (0.0, 1.0) else 1.0
        a, b = rng.uniform(0.75, 1.2, 2) * half * flare
        x, y = site.x + nx * reach, site.y + ny * reach
        near.append((x + site.dx * float(a), y + site.dy * float(a)))
        far.append((x - site.dx * float(b), y - site.dy * float(b)))
    return 255, [near + far[::-1]]


def _spur(board: Board, masks: BoardMasks, site: _TraceSite, rng: np.random.Generator) -> _Change:
    """A copper protrusion from one edge that reaches no other copper."""
    assert site.trace is not None  # noqa: S101
    nx, ny = _random_normal(site, rng)
    edge = site.trace.width / 2
    length = float(rng.uniform(0.36, 0.5)) * board.cell
    tip_x, tip_y = site.x + nx * (edge + length), site.y + ny * (edge + length)
    if not masks.is_clear(tip_x, tip_y, 0.24 * board.cell, site.trace.net):
        return None
    half, lean = float(rng.uniform(0.17, 0.26)) * board.cell, float(rng.uniform(-0.15, 0.15)) * board.cell
    foot_x, foot_y = site.x + nx * edge * 0.5, site.y + ny * edge * 0.5
    outline = [
        (foot_x + site.dx * half * 1.3, foot_y + site.dy * half * 1.3),
        (tip_x + site.dx * (lean + half * 0.55), tip_y + site.dy * (lean + half * 0.55)),
        (tip_x + nx * half * 0.4 + site.dx * lean, tip_y + ny * half * 0.4 + site.dy * lean),
        (tip_x + site.dx * (lean - half * 0.55), tip_y + site.dy * (lean - half * 0.55)),
        (foot_x - site.dx * half * 1.3, foot_y - site.dy * half * 1.3),
    ]
    return 255, [outline]


def _spurious_copper(board: Board, masks: BoardMasks, site: _TraceSite, rng: np.random.Generator) -> _Change:
    """An isolated island of copper."""
    half = float(rng.uniform(0.26, 0.45)) * board.cell
    if not masks.is_clear(site.x, site.y, half * 1.15 + 0.17 * board.cell, -1):
        return None
    aspect = float(rng.uniform(0.65, 1.0))
    return 255, [_blob(site.x, site.y, half, half * aspect, float(rng.uniform(0, pi)), rng)]


_SHAPES: dict[str, Callable[[Board, BoardMasks, _TraceSite, np.random.Generator], _Change]] = {
    "mouse_bite": _mouse_bite,
    "open_circuit": _open_circuit,
    "short": _short,
    "spur": _spur,
    "spurious_copper": _spurious_copper,
}
