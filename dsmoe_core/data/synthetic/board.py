"""Random layout of a circuit board without defects: parts and vias on a grid, connected by traces.

Traces of different nets never touch. Coordinates and sizes are in pixels of the rendered image; a grid cell
is a twentieth of its side.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import hypot
from typing import Literal

import numpy as np

from dsmoe_core.data.synthetic.rendering import Point

CELLS = 20
Cell = tuple[int, int]
_STEPS = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)]
_TRACE_WIDTHS = (0.4, 0.45, 0.5, 0.58)  # in cells
_BEND_COST = 0.6  # of a change of direction, in cells
_SHARP_BEND_COST = 9.0  # of a change by more than a right angle, which etches badly


@dataclass(slots=True)
class Pad:
    """A solder pad. ``round`` and ``square`` pads and vias are drilled, ``chip`` pads are not.

    Attributes:
        half_width, half_height: half its size in x and y.
        hole: radius of the drilled hole, 0 for none.
        net: pads and traces of the same number are connected.
    """

    kind: Literal["round", "square", "chip", "via"]
    cell: Cell
    x: float
    y: float
    half_width: float
    half_height: float
    hole: float
    net: int
    traces: int = 0


@dataclass(slots=True)
class Trace:
    """A conductor along a polyline."""

    net: int
    width: float
    points: list[Point]


@dataclass(slots=True)
class Board:
    """A board.

    Attributes:
        px: side of the image.
        outlines: printed frames of parts as (x1, y1, x2, y2), in cells.
    """

    px: int
    pads: list[Pad] = field(default_factory=list)
    traces: list[Trace] = field(default_factory=list)
    outlines: list[tuple[float, float, float, float]] = field(default_factory=list)

    @property
    def cell(self) -> float:
        return self.px / CELLS


def random_board(rng: np.random.Generator, px: int) -> Board:
    """A random board: parts first, then traces between their pads.

    Args:
        px: side of the image in pixels.
    """
    board = Board(px)
    taken: set[Cell] = set()
    for _ in range(int(rng.integers(6, 11))):
        _place_part(board, taken, rng)
    for _ in range(int(rng.integers(3, 7))):
        _place(board, taken, [(0, 0)], "via", (1, 1), rng)
    _connect(board, taken, rng)
    used = [pad for pad in board.pads if pad.kind != "via" or pad.traces]
    board.pads[:] = used
    return board


def _place_part(board: Board, taken: set[Cell], rng: np.random.Generator) -> None:
    """Place one part of a random kind and direction, if there is space for it."""
    kind = rng.choice(["dual", "row", "two", "chip", "chips"], p=[0.25, 0.2, 0.25, 0.15, 0.15])
    count = int(rng.integers(3, 6))
    if kind == "dual":
        row_distance = int(rng.integers(4, 6))
        cells = [(2 * i, j) for i in range(count) for j in (0, row_distance)]
    elif kind == "row":
        cells = [(2 * i, 0) for i in range(count)]
    elif kind == "two":
        cells = [(0, 0), (int(rng.integers(3, 6)), 0)]
    elif kind == "chip":
        cells = [(0, 0), (2, 0)]
    else:
        cells = [(i, j) for i in range(count) for j in (0, 4)]
    if rng.random() < 0.5:
        cells = [(j, i) for i, j in cells]
    size = (max(c[0] for c in cells) + 1, max(c[1] for c in cells) + 1)
    _place(board, taken, cells, "chip" if kind.startswith("chip") else "round", size, rng)


def _place(
    board: Board,
    taken: set[Cell],
    cells: list[Cell],
    kind: Literal["round", "chip", "via"],
    size: Cell,
    rng: np.random.Generator,
) -> None:
    for _ in range(12):
        left = int(rng.integers(1, max(CELLS - size[0], 2)))
        top = int(rng.integers(1, max(CELLS - size[1], 2)))
        around = {(left + i, top + j) for i in range(-1, size[0] + 1) for j in range(-1, size[1] + 1)}
        if (
            left + size[0] >= CELLS
            or top + size[1] >= CELLS
            or around & taken
            or _overlaps_part(board, around)
        ):
            continue
        scale = float(rng.uniform(0.9, 1.0))
        for number, (i, j) in enumerate(cells):
            taken.add((left + i, top + j))
            first_is_square = kind == "round" and number == 0 and len(cells) > 2
            pad_kind = "square" if first_is_square else kind
            board.pads.append(_pad(board, pad_kind, (left + i, top + j), scale, size[0] > size[1]))
        if kind != "via":
            edge = 0.05
            frame = (left - edge, top - edge, left + size[0] + edge, top + size[1] + edge)
            board.outlines.append(frame)
        return


def _overlaps_part(board: Board, cells: set[Cell]) -> bool:
    return any(x1 < i + 0.5 < x2 and y1 < j + 0.5 < y2 for x1, y1, x2, y2 in board.outlines for i, j in cells)


def _pad(
    board: Board, kind: Literal["round", "square", "chip", "via"], cell: Cell, scale: float, horizontal: bool
) -> Pad:
    half, hole = {"round": (0.44, 0.2), "square": (0.42, 0.2), "chip": (0.42, 0.0), "via": (0.3, 0.12)}[kind]
    unit = board.cell * scale
    narrow = 0.7 if kind == "chip" else 1.0
    width, height = (narrow, 1.0) if horizontal else (1.0, narrow)
    x, y = (cell[0] + 0.5) * board.cell, (cell[1] + 0.5) * board.cell
    return Pad(kind, cell, x, y, half * unit * width, half * unit * height, hole * unit, net=len(board.pads))


def _connect(board: Board, taken: set[Cell], rng: np.random.Generator) -> None:
    """Route traces from pad to pad, and from some pads out of the image."""
    count = len(board.pads)
    order = [*rng.permutation(count), *rng.permutation(count)]
    for start in (board.pads[i] for i in order):
        if start.traces >= 2:
            continue
        if rng.random() < 0.35:
            _route_out(board, taken, start, rng)
            continue
        candidates = [
            p
            for p in board.pads
            if p.net != start.net and p.traces < 2 and 3 <= _distance(start.cell, p.cell) <= 14
        ]
        if not candidates:
            continue
        goal = candidates[int(rng.integers(len(candidates)))]
        path = _route(start.cell, goal.cell, taken)
        if path is None:
            continue
        goal.traces += 1
        old, new = goal.net, start.net
        for pad in board.pads:
            pad.net = new if pad.net == old else pad.net
        for trace in board.traces:
            trace.net = new if trace.net == old else trace.net
        _add_trace(board, taken, start, path, [], rng)


def _route_out(board: Board, taken: set[Cell], start: Pad, rng: np.random.Generator) -> None:
    position, last = int(rng.integers(CELLS)), CELLS - 1
    goal, beyond = [
        ((0, position), (-2, position)),
        ((last, position), (last + 2, position)),
        ((position, 0), (position, -2)),
        ((position, last), (position, last + 2)),
    ][int(rng.integers(4))]
    if goal in taken or _distance(start.cell, goal) < 3:
        return
    path = _route(start.cell, goal, taken)
    if path is not None:
        _add_trace(board, taken, start, path, [beyond], rng)


def _add_trace(
    board: Board,
    taken: set[Cell],
    start: Pad,
    path: list[Cell],
    beyond: list[Cell],
    rng: np.random.Generator,
) -> None:
    taken.update(path)
    start.traces += 1
    unit = board.cell
    points = [((i + 0.5) * unit, (j + 0.5) * unit) for i, j in _corners([*path, *beyond])]
    width = float(rng.choice(_TRACE_WIDTHS, p=[0.35, 0.35, 0.2, 0.1])) * unit
    board.traces.append(Trace(start.net, width, points))


def _distance(a: Cell, b: Cell) -> float:
    return hypot(a[0] - b[0], a[1] - b[1])


def _corners(path: list[Cell]) -> list[Cell]:
    """The ends of a path and the cells where it changes direction."""
    corners = [path[0]]
    for before, here, after in zip(path, path[1:], path[2:], strict=False):
        cross_product = (here[0] - before[0]) * (after[1] - here[1]) - (here[1] - before[1]) * (
            after[0] - here[0]
        )
        if cross_product:
            corners.append(here)
    return [*corners, path[-1]]


def _route(start: Cell, goal: Cell, taken: set[Cell]) -> list[Cell] | None:
    """A short path through free cells (A* on 8 neighbours with a cost for bends); None if there is none."""
    best: dict[Cell, float] = {start: 0.0}
    previous: dict[Cell, Cell] = {}
    queue: list[tuple[float, Cell]] = [(0.0, start)]
    done: set[Cell] = set()
    while queue:
        _, here = heapq.heappop(queue)
        if here == goal:
            return _backtracked(previous, start, goal)
        if here in done:
            continue
        done.add(here)
        before = previous.get(here)
        heading = None if before is None else (here[0] - before[0], here[1] - before[1])
        for to, cost in _steps_from(here, heading, goal, taken):
            total = best[here] + cost
            if to not in done and total < best.get(to, 1e9):
                best[to], previous[to] = total, here
                heapq.heappush(queue, (total + _distance(to, goal), to))
    return None


def _steps_from(
    here: Cell, heading: Cell | None, goal: Cell, taken: set[Cell]
) -> Iterator[tuple[Cell, float]]:
    """The free neighbours of a cell, with the cost of a step to each when arriving with this heading."""
    x, y = here
    for dx, dy in _STEPS:
        to = (x + dx, y + dy)
        if (to in taken and to != goal) or not (0 <= to[0] < CELLS and 0 <= to[1] < CELLS):
            continue
        diagonal = dx and dy
        if diagonal and ((x + dx, y) in taken or (x, y + dy) in taken):
            continue  # it would touch copper in passing, or cross another diagonal
        cost = 1.414 if diagonal else 1.0
        if heading is not None and heading != (dx, dy):
            cost += _SHARP_BEND_COST if heading[0] * dx + heading[1] * dy < 0 else _BEND_COST
        yield to, cost


def _backtracked(previous: dict[Cell, Cell], start: Cell, goal: Cell) -> list[Cell]:
    path = [goal]
    while path[-1] != start:
        path.append(previous[path[-1]])
    return path[::-1]
