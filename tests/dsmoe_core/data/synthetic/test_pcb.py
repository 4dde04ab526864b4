"""Drawn boards: repeatable, sound before a defect is added, and each defect changes what it should."""

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


def test_images_hold_two_to_six_defects_or_none(images: list[SyntheticImage]) -> None:
    counts = {len(p.annotations) for p in images}
    assert 0 in counts
    assert counts <= {0, 2, 3, 4, 5, 6}
    assert all((p.image.mode, p.image.size) == ("RGB", (PX, PX)) for p in images)


def test_no_class_is_rare(images: list[SyntheticImage]) -> None:
    labels = Counter(a.label for p in images for a in p.annotations)
    assert set(labels) == set(CLASSES)
    assert min(labels.values()) * 3 > max(labels.values())


def test_boxes_can_be_seen(images: list[SyntheticImage]) -> None:
    for image in images:
        boxes = [a.box for a in image.annotations]
        assert all(min(box.width, box.height) >= 9 and max(box.width, box.height) <= 32 for box in boxes)


def test_a_larger_image_shows_larger_defects() -> None:
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
    """Boards with one defect of a class: board, masks, copper before and after, and its box."""
    found = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        board = random_board(rng, PX)
        masks = render_masks(board)
        before = np.asarray(masks.copper) > 0
        added = add_defect(name, board, masks, [], rng)
        if added is not None:
            assert added.label == name
            found.append((board, masks, before, np.asarray(masks.copper) > 0, added.box))
        if len(found) == count:
            return found
    raise AssertionError(f"{name} was drawn {len(found)} times on 200 boards")


def grown(mask: Mask) -> Mask:
    """The mask and the pixels beside it."""
    result = mask.copy()
    for axis in (0, 1):
        for step in (-1, 1):
            result |= np.roll(mask, step, axis)
    return result


def nets_at(masks: BoardMasks, mask: Mask) -> set[int]:
    return set(np.unique(masks.nets[mask])) - {0}


def pieces(copper: Mask, net: Mask, box: Box) -> int:
    """Into how many pieces one net's copper falls near a box."""
    reach = 8
    y1, y2 = int((box.y1 - reach) * FINE), int((box.y2 + reach) * FINE)
    x1, x2 = int((box.x1 - reach) * FINE), int((box.x2 + reach) * FINE)
    window = (copper & net)[max(y1, 0) : y2, max(x1, 0) : x2]
    image = Image.fromarray((window * 255).astype(np.uint8)).copy()  # floodfill cannot write to a view
    count = 0
    while (left := np.argwhere(np.asarray(image) == 255)).size:
        ImageDraw.floodfill(image, (int(left[0][1]), int(left[0][0])), 128)
        count += 1
    return count


@pytest.mark.parametrize("name", ["mouse_bite", "open_circuit", "short", "spur", "spurious_copper"])
def test_the_box_holds_all_that_changed(name: str) -> None:
    for _, _, before, after, box in defects(name):
        rows, columns = np.nonzero(before != after)
        assert box.x1 < columns.min() / FINE < columns.max() / FINE < box.x2
        assert box.y1 < rows.min() / FINE < rows.max() / FINE < box.y2


def test_a_mouse_bite_thins_a_trace_but_does_not_cut_it() -> None:
    for _, masks, before, after, box in defects("mouse_bite"):
        assert not (after & ~before).any()
        (net,) = nets_at(masks, before & ~after)
        own = masks.nets == net
        assert pieces(after, own, box) == pieces(before, own, box)


def test_an_open_circuit_cuts_its_trace() -> None:
    for _, masks, before, after, box in defects("open_circuit"):
        (net,) = nets_at(masks, before & ~after)
        own = masks.nets == net
        assert pieces(after, own, box) == pieces(before, own, box) + 1


def test_a_short_joins_exactly_two_nets() -> None:
    for _, masks, before, after, _ in defects("short"):
        assert not (before & ~after).any()
        assert len(nets_at(masks, grown(after & ~before))) == 2


def test_a_spur_grows_from_one_net_and_reaches_no_other() -> None:
    for _, masks, before, after, _ in defects("spur"):
        assert not (before & ~after).any()
        assert len(nets_at(masks, grown(after & ~before))) == 1


def test_spurious_copper_touches_nothing() -> None:
    for _, masks, before, after, _ in defects("spurious_copper"):
        assert (after & ~before).any()
        assert nets_at(masks, grown(grown(after & ~before))) == set()


def test_a_missing_hole_leaves_the_pad_and_fills_the_hole() -> None:
    for board, masks, before, after, box in defects("missing_hole"):
        assert (before == after).all()
        (pad,) = [p for p in board.pads if box.x1 < p.x < box.x2 and box.y1 < p.y < box.y2]
        assert pad.kind == "round"
        assert masks.holes.getpixel((int(pad.x * FINE), int(pad.y * FINE))) == 0
