"""Synthetic boards: valid layout without defects, and each defect changes the copper as expected."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dsmoe_core.data.synthetic.board import Board, random_board
from dsmoe_core.data.synthetic.copper import FINE, BoardMasks, render_masks
from dsmoe_core.data.synthetic.pcb import render
from dsmoe_core.data.synthetic.pcb_defects import CLASSES, add_defect
from dsmoe_core.data.synthetic.rendering import SyntheticImage
from dsmoe_core.schema import Box

PX = 320
Mask = NDArray[np.bool_]


@pytest.fixture(scope="module")
def images() -> list[SyntheticImage]:
    return [render(seed, PX) for seed in range(32)]


def test_boards_have_two_to_six_defects_or_none(images: list[SyntheticImage]) -> None:
    counts = {len(image.annotations) for image in images}
    assert 0 in counts
    assert counts <= {0, 2, 3, 4, 5, 6}
    assert all((image.image.mode, image.image.size) == ("RGB", (PX, PX)) for image in images)


def test_no_class_is_rare(images: list[SyntheticImage]) -> None:
    labels = Counter(a.label for image in images for a in image.annotations)
    assert set(labels) == set(CLASSES)
    assert min(labels.values()) * 3 > max(labels.values())


def test_boxes_have_a_visible_size(images: list[SyntheticImage]) -> None:
    for image in images:
        boxes = [a.box for a in image.annotations]
        assert all(min(box.width, box.height) >= 9 and max(box.width, box.height) <= 32 for box in boxes)


def test_defects_scale_with_the_image() -> None:
    box = next(a.box for seed in range(9) for a in render(seed, 640).annotations)
    assert min(box.width, box.height) >= 18


def test_traces_of_different_nets_never_touch() -> None:
    for seed in range(12):
        masks = render_masks(random_board(np.random.default_rng(seed), PX))
        for rows, columns in ((slice(1, None), slice(None)), (slice(None), slice(1, None))):
            a = masks.nets[rows, columns]
            b = masks.nets[: a.shape[0], : a.shape[1]]
            assert not ((a != b) & (a > 0) & (b > 0)).any()


def defects(name: str, count: int = 6) -> list[tuple[Board, BoardMasks, Mask, Mask, Box]]:
    """Boards with one defect of a class: board, masks, copper before and after, and the box."""
    boards = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        board = random_board(rng, PX)
        masks = render_masks(board)
        before = np.asarray(masks.copper) > 0
        added = add_defect(name, board, masks, [], rng)
        if added is not None:
            assert added.label == name
            boards.append((board, masks, before, np.asarray(masks.copper) > 0, added.box))
        if len(boards) == count:
            return boards
    raise AssertionError(f"{name} was rendered {len(boards)} times on 200 boards")


def dilated(mask: Mask) -> Mask:
    """The mask dilated by one pixel."""
    result = mask.copy()
    for axis in (0, 1):
        for step in (-1, 1):
            result |= np.roll(mask, step, axis)
    return result


def nets_at(masks: BoardMasks, mask: Mask) -> set[int]:
    return set(np.unique(masks.nets[mask])) - {0}


def components(copper: Mask, net: Mask, box: Box) -> int:
    """Number of connected components of one net's copper near a box."""
    reach = 8
    y1, y2 = int((box.y1 - reach) * FINE), int((box.y2 + reach) * FINE)
    x1, x2 = int((box.x1 - reach) * FINE), int((box.x2 + reach) * FINE)
    window = (copper & net)[max(y1, 0) : y2, max(x1, 0) : x2]
    image = Image.fromarray((window * 255).astype(np.uint8)).copy()  # floodfill cannot write to a view
    count = 0
    while (remaining := np.argwhere(np.asarray(image) == 255)).size:
        ImageDraw.floodfill(image, (int(remaining[0][1]), int(remaining[0][0])), 128)
        count += 1
    return count


@pytest.mark.parametrize("name", ["mouse_bite", "open_circuit", "short", "spur", "spurious_copper"])
def test_box_contains_all_changed_pixels(name: str) -> None:
    for _, _, before, after, box in defects(name):
        rows, columns = np.nonzero(before != after)
        assert box.x1 < columns.min() / FINE < columns.max() / FINE < box.x2
        assert box.y1 < rows.min() / FINE < rows.max() / FINE < box.y2


def test_mouse_bite_thins_a_trace_without_cutting_it() -> None:
    for _, masks, before, after, box in defects("mouse_bite"):
        assert not (after & ~before).any()
        (net,) = nets_at(masks, before & ~after)
        own = masks.nets == net
        assert components(after, own, box) == components(before, own, box)


def test_open_circuit_cuts_its_trace() -> None:
    for _, masks, before, after, box in defects("open_circuit"):
        (net,) = nets_at(masks, before & ~after)
        own = masks.nets == net
        assert components(after, own, box) == components(before, own, box) + 1


def test_short_connects_exactly_two_nets() -> None:
    for _, masks, before, after, _ in defects("short"):
        assert not (before & ~after).any()
        assert len(nets_at(masks, dilated(after & ~before))) == 2


def test_spur_touches_exactly_one_net() -> None:
    for _, masks, before, after, _ in defects("spur"):
        assert not (before & ~after).any()
        assert len(nets_at(masks, dilated(after & ~before))) == 1


def test_spurious_copper_touches_nothing() -> None:
    for _, masks, before, after, _ in defects("spurious_copper"):
        assert (after & ~before).any()
        assert nets_at(masks, dilated(dilated(after & ~before))) == set()


def test_missing_hole_keeps_the_pad_and_fills_the_hole() -> None:
    for board, masks, before, after, box in defects("missing_hole"):
        assert (before == after).all()
        (pad,) = [p for p in board.pads if box.x1 < p.x < box.x2 and box.y1 < p.y < box.y2]
        assert pad.kind == "round"
        assert masks.holes.getpixel((int(pad.x * FINE), int(pad.y * FINE))) == 0
