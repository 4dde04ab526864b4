"""Tiles cover an image, boxes fall into them, and what they see becomes one image again without seams."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from dsmoe_core.config import Tiles
from dsmoe_core.data.letterbox import LetterboxReader
from dsmoe_core.schema import Annotation, Box, Detection, ImageRecord, LabelledImage, Prediction, Routing
from dsmoe_core.tile_merge import CutEdges, TileDetection, merge_detections
from dsmoe_core.tiling import Predict, image_views, labelled_views, predict_tiled, tile_grid, training_views

TILES = st.builds(Tiles, px=st.integers(64, 200), overlap=st.floats(0, 0.6), whole=st.booleans())
SIDES = st.integers(1, 700)
Corners = tuple[int, int, int, int]


def image(width: int, height: int, key: str = "k") -> ImageRecord:
    return ImageRecord(key, f"{key}.png", Path("none.png"), width, height)


@given(SIDES, SIDES, TILES)
def test_tiles_cover_every_pixel_lie_inside_and_overlap(width: int, height: int, tiles: Tiles) -> None:
    covered = np.zeros((height, width), dtype=int)
    found = tile_grid(width, height, tiles)
    for left, top, right, bottom in found:
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert (right - left, bottom - top) == (min(tiles.px, width), min(tiles.px, height))
        covered[top:bottom, left:right] += 1
    assert covered.min() >= 1
    assert len(set(found)) == len(found)
    lefts = sorted({t.left for t in found})
    for one, following in pairwise(lefts):
        assert one + tiles.px - following >= int(tiles.px * tiles.overlap)


@given(SIDES, SIDES, TILES, st.data())
def test_what_is_smaller_than_the_overlap_is_whole_in_a_tile(
    width: int, height: int, tiles: Tiles, data: st.DataObject
) -> None:
    most = int(tiles.px * tiles.overlap)
    assume(min(most, width, height) >= 1)
    w, h = data.draw(st.integers(1, min(most, width))), data.draw(st.integers(1, min(most, height)))
    x, y = data.draw(st.integers(0, width - w)), data.draw(st.integers(0, height - h))
    assert any(
        t.left <= x and t.top <= y and x + w <= t.right and y + h <= t.bottom
        for t in tile_grid(width, height, tiles)
    )


@st.composite
def boards(draw: st.DrawFn) -> tuple[int, int, list[Corners]]:
    """A large image and boxes of at least 8 pixels that keep 8 pixels of each other."""
    width, height = draw(st.integers(65, 500)), draw(st.integers(65, 500))
    boxes: list[Corners] = []
    for _ in range(draw(st.integers(0, 6))):
        x, y = draw(st.integers(0, width - 8)), draw(st.integers(0, height - 8))
        w = draw(st.integers(8, min(250, width - x)))
        h = draw(st.integers(8, min(250, height - y)))
        apart = (x + w + 8 <= a or c + 8 <= x or y + h + 8 <= b or d + 8 <= y for a, b, c, d in boxes)
        if all(apart):
            boxes.append((x, y, x + w, y + h))
    return width, height, boxes


def box(corners: Sequence[float]) -> Box:
    return Box(*map(float, corners))


@given(boards(), TILES)
def test_no_box_is_lost_to_training(board: tuple[int, int, list[Corners]], tiles: Tiles) -> None:
    width, height, boxes = board
    labels = tuple(Annotation(box(corners), str(i)) for i, corners in enumerate(boxes))
    views = labelled_views(LabelledImage(image(width, height), labels), tiles)
    assert {a.label for v in views for a in v.annotations} == {a.label for a in labels}
    assert len({v.image.key for v in views}) == len(views) >= 1
    for view in views:
        left, top = view.image.region[:2] if view.image.region else (0, 0)
        for annotation in view.annotations:
            shown, whole = annotation.box, boxes[int(annotation.label)]
            assert shown.inside(view.image.width, view.image.height, tolerance=0)
            assert whole[0] <= shown.x1 + left
            assert shown.x2 + left <= whole[2]
            assert whole[1] <= shown.y1 + top
            assert shown.y2 + top <= whole[3]


def test_a_box_belongs_to_the_tiles_that_show_enough_of_it() -> None:
    tiles = Tiles(px=100, overlap=0.2, visible=0.5, whole=False, empty=0)
    seam = Annotation(box((74, 10, 94, 30)), "x")  # the second tile begins at 80
    views = labelled_views(LabelledImage(image(340, 100), (seam,)), tiles)
    assert [(v.image.region, v.annotations[0].box.corners) for v in views] == [
        ((0, 0, 100, 100), (74.0, 10.0, 94.0, 30.0)),
        ((80, 0, 180, 100), (0.0, 10.0, 14.0, 30.0)),
    ]


def test_of_empty_tiles_the_share_that_was_asked_for_is_kept() -> None:
    counts = []
    for empty in (0.0, 0.3, 1.0):
        tiles = Tiles(px=64, overlap=0, whole=False, empty=empty)
        counts.append(len(training_views([LabelledImage(image(64 * 40, 64 * 40), ())], tiles)))
    assert counts[0] == 1  # an image without a defect is never quite gone
    assert abs(counts[1] / 1600 - 0.3) < 0.05
    assert counts[2] == 1600


ROUTING = Routing((1, 0), (0.75, 0.25), 0.5)


def detection(corners: Sequence[float], label: str = "spur", score: float = 0.9) -> Detection:
    return Detection(box(corners), label, score, {label: score}, 0.1)


def perfect(boxes: Sequence[Corners], *, least: int = 3, seen: list[str] | None = None) -> Predict:
    """A detector that draws the visible part of every box, of at least so many pixels."""

    def look(views: Iterable[ImageRecord]) -> Iterator[Prediction]:
        for view in views:
            if seen is not None:
                seen.append(view.key)
            left, top, right, bottom = view.region or (0, 0, view.width, view.height)
            clipped = [(max(a, left), max(b, top), min(c, right), min(d, bottom)) for a, b, c, d in boxes]
            found = tuple(
                detection((a - left, b - top, c - left, d - top))
                for a, b, c, d in clipped
                if c - a >= least and d - b >= least
            )
            yield Prediction(view.key, found, ROUTING, 0.0, "m+b")

    return look


@settings(max_examples=300, deadline=None)
@given(boards(), TILES)
def test_a_defect_across_seams_is_found_once_with_its_right_box(
    board: tuple[int, int, list[Corners]], tiles: Tiles
) -> None:
    width, height, boxes = board
    assume(tiles.overlap * tiles.px >= 8)  # pieces must meet
    (found,) = predict_tiled(perfect(boxes), [image(width, height)], tiles)
    assert sorted(f.box.corners for f in found.detections) == sorted(tuple(map(float, b)) for b in boxes)


def test_a_scratch_over_three_tiles_becomes_one_even_aslant() -> None:
    tiles = Tiles(px=100, overlap=0.25, whole=False)
    pieces = [
        (10, 10, 100, 60),
        (75, 45, 175, 80),
        (150, 70, 220, 95),
    ]
    seen = [
        TileDetection(detection(pieces[0], score=0.5), CutEdges(right=True)),
        TileDetection(detection(pieces[1], score=0.8), CutEdges(left=True, right=True)),
        TileDetection(detection(pieces[2], score=0.6), CutEdges(left=True)),
    ]
    (one,) = merge_detections(seen)
    assert one.box.corners == (10, 10, 220, 95)
    assert one.score == 0.8
    assert tile_grid(250, 100, tiles)[1].left == 75


def test_a_whole_detection_replaces_its_pieces_and_keeps_the_surer_score() -> None:
    whole = TileDetection(detection((90, 10, 130, 50), score=0.6), CutEdges())
    piece = TileDetection(detection((90, 10, 100, 50), score=0.9), CutEdges(right=True))
    again = TileDetection(detection((91, 10, 130, 51), score=0.8), CutEdges())
    assert [f.box.corners for f in merge_detections([piece, whole])] == [(90, 10, 130, 50)]
    (one,) = merge_detections([whole, again, piece])
    assert (one.box.corners, one.score) == ((91, 10, 130, 51), 0.8)


@pytest.mark.parametrize("turned", [False, True], ids=["left and right", "above and below"])
def test_pieces_meet_where_little_of_them_overlaps_across_the_seam(turned: bool) -> None:
    def piece(corners: Corners, cut: CutEdges) -> TileDetection:
        a, b, c, d = corners
        if turned:
            return TileDetection(detection((b, a, d, c)), CutEdges(cut.top, cut.left, cut.bottom, cut.right))
        return TileDetection(detection(corners), cut)

    first = piece((10, 10, 100, 60), CutEdges(right=True))
    beyond = piece((90, 12, 300, 61), CutEdges(left=True))
    past = piece((90, 55, 300, 105), CutEdges(left=True))  # another defect, at another height
    (one,) = merge_detections([first, beyond])
    assert one.box.corners == ((10, 10, 61, 300) if turned else (10, 10, 300, 61))
    assert len(merge_detections([first, past])) == 2


def test_a_box_that_was_never_cut_is_the_better_box() -> None:
    cut = TileDetection(detection((10, 10, 100, 60), score=0.9), CutEdges(right=True))
    whole = TileDetection(detection((10, 10, 130, 60), score=0.3), CutEdges())
    (one,) = merge_detections([cut, whole])
    assert (one.box.corners, one.score) == ((10, 10, 130, 60), 0.9)


def test_a_doubtful_detection_of_the_whole_image_swallows_no_sure_piece() -> None:
    doubtful = TileDetection(detection((0, 0, 300, 300), score=0.06), CutEdges())
    piece = TileDetection(detection((90, 10, 100, 50), score=0.9), CutEdges(right=True))
    assert [f.score for f in merge_detections([doubtful, piece])] == [0.9, 0.06]


def test_classes_are_merged_each_for_itself() -> None:
    seen = [TileDetection(detection((10, 10, 30, 30), label), CutEdges()) for label in ("spur", "short")]
    assert {f.label for f in merge_detections(seen)} == {"spur", "short"}


@given(st.integers(1, 64), st.integers(1, 64), st.booleans())
def test_tiling_a_image_smaller_than_a_tile_is_no_tiling(width: int, height: int, whole: bool) -> None:
    small, tiles = image(width, height), Tiles(px=64, whole=whole)
    look = perfect([(0, 0, width, height)], least=1)
    assert image_views(small, tiles) == [small]
    assert list(predict_tiled(look, [small], tiles)) == list(look([small]))
    labelled = LabelledImage(small, (Annotation(box((0, 0, 1, 1)), "x"),))
    assert labelled_views(labelled, tiles) == [labelled]


def test_images_stay_in_order_and_views_come_in_one_stream() -> None:
    tiles = Tiles(px=100, overlap=0.2)
    shown: list[str] = []
    images = [image(50, 50, "a"), image(250, 120, "b"), image(20, 90, "c")]
    found = predict_tiled(perfect([(10, 10, 20, 20)], seen=shown), iter(images), tiles)
    assert next(found).key == "a"
    assert shown == ["a"]
    assert [f.key for f in found] == ["b", "c"]
    assert len(shown) == len(set(shown)) == 1 + len(image_views(images[1], tiles)) + 1


def test_what_comes_out_is_a_image_s_detections() -> None:
    (found,) = predict_tiled(perfect([(10, 10, 20, 20), (150, 10, 170, 30)]), [image(200, 64)], Tiles(px=64))
    assert found.key == "k"
    assert found.version == "m+b"
    assert found.routing == ROUTING
    assert found.uncertainty == pytest.approx(0.2)


def test_a_tile_s_square_shows_its_part_of_the_file(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (150, 200, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "board.png")
    board = ImageRecord("k", "board.png", tmp_path / "board.png", 200, 150)
    for view in image_views(board, Tiles(px=64, overlap=0, whole=False)):
        assert view.region is not None
        left, top, right, bottom = view.region
        np.testing.assert_array_equal(LetterboxReader(64).read(view), pixels[top:bottom, left:right])
