"""Tiling: coverage of the image, assignment of boxes to tiles, and merging of detections."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
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
from dsmoe_core.tiling import (
    Predict,
    boxes_on_tiles,
    image_views,
    labelled_views,
    predict_tiled,
    tile_grid,
    training_views,
)

TILES = st.builds(Tiles, px=st.integers(64, 200), overlap=st.floats(0, 0.6), whole=st.booleans())
SIDES = st.integers(1, 700)
Corners = tuple[int, int, int, int]


def image(width: int, height: int, key: str = "k") -> ImageRecord:
    return ImageRecord(key, f"{key}.png", Path("none.png"), width, height)


@given(SIDES, SIDES, TILES)
def test_tiles_cover_every_pixel_are_inside_and_overlap(width: int, height: int, tiles: Tiles) -> None:
    covered = np.zeros((height, width), dtype=int)
    grid = tile_grid(width, height, tiles)
    for left, top, right, bottom in grid:
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert (right - left, bottom - top) == (min(tiles.px, width), min(tiles.px, height))
        covered[top:bottom, left:right] += 1
    assert covered.min() >= 1
    assert len(set(grid)) == len(grid)
    lefts = sorted({t.left for t in grid})
    for left, next_left in pairwise(lefts):
        assert left + tiles.px - next_left >= int(tiles.px * tiles.overlap)


@given(SIDES, SIDES, TILES, st.data())
def test_box_smaller_than_the_overlap_is_complete_in_a_tile(
    width: int, height: int, tiles: Tiles, data: st.DataObject
) -> None:
    max_side = int(tiles.px * tiles.overlap)
    assume(min(max_side, width, height) >= 1)
    w, h = data.draw(st.integers(1, min(max_side, width))), data.draw(st.integers(1, min(max_side, height)))
    x, y = data.draw(st.integers(0, width - w)), data.draw(st.integers(0, height - h))
    assert any(
        t.left <= x and t.top <= y and x + w <= t.right and y + h <= t.bottom
        for t in tile_grid(width, height, tiles)
    )


@st.composite
def boards(draw: st.DrawFn) -> tuple[int, int, list[Corners]]:
    """Image size, and boxes of at least 8 pixels with a distance of at least 8 pixels."""
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
def test_every_box_is_in_a_training_view(board: tuple[int, int, list[Corners]], tiles: Tiles) -> None:
    width, height, boxes = board
    labels = tuple(Annotation(box(corners), str(i)) for i, corners in enumerate(boxes))
    views = labelled_views(LabelledImage(image(width, height), labels), tiles)
    assert {a.label for v in views for a in v.annotations} == {a.label for a in labels}
    assert len({v.image.key for v in views}) == len(views) >= 1
    for view in views:
        left, top = view.image.region[:2] if view.image.region else (0, 0)
        for annotation in view.annotations:
            clipped, full = annotation.box, boxes[int(annotation.label)]
            assert clipped.inside(view.image.width, view.image.height, tolerance=0)
            assert full[0] <= clipped.x1 + left
            assert clipped.x2 + left <= full[2]
            assert full[1] <= clipped.y1 + top
            assert clipped.y2 + top <= full[3]


@given(boards(), TILES)
def test_box_is_on_the_tile_with_its_centre_at_the_same_place_of_the_image(
    board: tuple[int, int, list[Corners]], tiles: Tiles
) -> None:
    width, height, boxes = board
    found = boxes_on_tiles(image(width, height), [box(corners) for corners in boxes], tiles)
    assert len(found) == len(boxes)
    for corners, (view, on_tile) in zip(boxes, found, strict=True):
        left, top = view.region[:2] if view.region else (0, 0)
        moved = (on_tile.x1 + left, on_tile.y1 + top, on_tile.x2 + left, on_tile.y2 + top)
        assert moved == pytest.approx(corners)
        assert 0 <= (on_tile.x1 + on_tile.x2) / 2 <= view.width
        assert 0 <= (on_tile.y1 + on_tile.y2) / 2 <= view.height
        assert (view.region is None) == (max(width, height) <= tiles.px)


def test_boxes_of_an_image_that_is_not_cut_are_unchanged() -> None:
    whole, found = image(500, 500), box((1, 2, 30, 40))
    assert boxes_on_tiles(whole, [found], None) == [(whole, found)]


def test_box_is_assigned_to_the_tiles_that_contain_enough_of_it() -> None:
    tiles = Tiles(px=100, overlap=0.2, visible=0.5, whole=False, empty=0)
    annotation = Annotation(box((74, 10, 94, 30)), "x")  # the second tile begins at 80
    views = labelled_views(LabelledImage(image(340, 100), (annotation,)), tiles)
    assert [(v.image.region, v.annotations[0].box.corners) for v in views] == [
        ((0, 0, 100, 100), (74.0, 10.0, 94.0, 30.0)),
        ((80, 0, 180, 100), (0.0, 10.0, 14.0, 30.0)),
    ]


def test_configured_share_of_empty_tiles_is_kept() -> None:
    counts = []
    for empty in (0.0, 0.3, 1.0):
        tiles = Tiles(px=64, overlap=0, whole=False, empty=empty)
        counts.append(len(training_views([LabelledImage(image(64 * 40, 64 * 40), ())], tiles)))
    assert counts[0] == 1  # an image without defects keeps one tile
    assert abs(counts[1] / 1600 - 0.3) < 0.05
    assert counts[2] == 1600


ROUTING = Routing((1, 0), (0.75, 0.25), 0.5)


def detection(corners: Sequence[float], label: str = "spur", score: float = 0.9) -> Detection:
    return Detection(box(corners), label, score, {label: score}, 0.1)


def perfect(boxes: Sequence[Corners], *, min_px: int = 3, keys: list[str] | None = None) -> Predict:
    """A detector that returns the visible part of every box.

    Args:
        min_px: narrower parts are not detected.
        keys: the key of each view is appended to it.
    """

    def predict(views: Iterable[ImageRecord]) -> Iterator[Prediction]:
        for view in views:
            if keys is not None:
                keys.append(view.key)
            left, top, right, bottom = view.region or (0, 0, view.width, view.height)
            clipped = [(max(a, left), max(b, top), min(c, right), min(d, bottom)) for a, b, c, d in boxes]
            detections = tuple(
                detection((a - left, b - top, c - left, d - top))
                for a, b, c, d in clipped
                if c - a >= min_px and d - b >= min_px
            )
            yield Prediction(view.key, detections, ROUTING, 0.0, "m+b")

    return predict


@settings(max_examples=300, deadline=None)
@given(boards(), TILES)
def test_defect_across_tile_boundaries_is_detected_once_with_its_box(
    board: tuple[int, int, list[Corners]], tiles: Tiles
) -> None:
    width, height, boxes = board
    assume(tiles.overlap * tiles.px >= 8)  # pieces must meet
    (prediction,) = predict_tiled(perfect(boxes), [image(width, height)], tiles)
    assert sorted(d.box.corners for d in prediction.detections) == sorted(tuple(map(float, b)) for b in boxes)


def test_oblique_scratch_over_three_tiles_is_joined() -> None:
    tiles = Tiles(px=100, overlap=0.25, whole=False)
    pieces = [
        (10, 10, 100, 60),
        (75, 45, 175, 80),
        (150, 70, 220, 95),
    ]
    tile_detections = [
        TileDetection(detection(pieces[0], score=0.5), CutEdges(right=True)),
        TileDetection(detection(pieces[1], score=0.8), CutEdges(left=True, right=True)),
        TileDetection(detection(pieces[2], score=0.6), CutEdges(left=True)),
    ]
    (merged,) = merge_detections(tile_detections)
    assert merged.box.corners == (10, 10, 220, 95)
    assert merged.score == 0.8
    assert tile_grid(250, 100, tiles)[1].left == 75


def test_uncut_detection_replaces_its_pieces_and_keeps_the_higher_score() -> None:
    whole = TileDetection(detection((90, 10, 130, 50), score=0.6), CutEdges())
    piece = TileDetection(detection((90, 10, 100, 50), score=0.9), CutEdges(right=True))
    second = TileDetection(detection((91, 10, 130, 51), score=0.8), CutEdges())
    assert [d.box.corners for d in merge_detections([piece, whole])] == [(90, 10, 130, 50)]
    (merged,) = merge_detections([whole, second, piece])
    assert (merged.box.corners, merged.score) == ((91, 10, 130, 51), 0.8)


@pytest.mark.parametrize("transposed", [False, True], ids=["side by side", "one above the other"])
def test_pieces_are_joined_if_they_overlap_along_the_boundary(transposed: bool) -> None:
    def piece(corners: Corners, cut: CutEdges) -> TileDetection:
        a, b, c, d = corners
        if transposed:
            return TileDetection(detection((b, a, d, c)), CutEdges(cut.top, cut.left, cut.bottom, cut.right))
        return TileDetection(detection(corners), cut)

    first = piece((10, 10, 100, 60), CutEdges(right=True))
    beyond = piece((90, 12, 300, 61), CutEdges(left=True))
    separate = piece((90, 55, 300, 105), CutEdges(left=True))  # another defect, at another height
    (merged,) = merge_detections([first, beyond])
    assert merged.box.corners == ((10, 10, 61, 300) if transposed else (10, 10, 300, 61))
    assert len(merge_detections([first, separate])) == 2


def test_uncut_box_is_preferred() -> None:
    cut = TileDetection(detection((10, 10, 100, 60), score=0.9), CutEdges(right=True))
    whole = TileDetection(detection((10, 10, 130, 60), score=0.3), CutEdges())
    (merged,) = merge_detections([cut, whole])
    assert (merged.box.corners, merged.score) == ((10, 10, 130, 60), 0.9)


def test_uncut_detection_of_low_score_does_not_replace_a_piece_of_high_score() -> None:
    doubtful = TileDetection(detection((0, 0, 300, 300), score=0.06), CutEdges())
    piece = TileDetection(detection((90, 10, 100, 50), score=0.9), CutEdges(right=True))
    assert [d.score for d in merge_detections([doubtful, piece])] == [0.9, 0.06]


def test_classes_are_merged_separately() -> None:
    tile_detections = [
        TileDetection(detection((10, 10, 30, 30), label), CutEdges()) for label in ("spur", "short")
    ]
    assert {d.label for d in merge_detections(tile_detections)} == {"spur", "short"}


@given(st.integers(1, 64), st.integers(1, 64), st.booleans())
def test_image_smaller_than_a_tile_is_not_tiled(width: int, height: int, whole: bool) -> None:
    small, tiles = image(width, height), Tiles(px=64, whole=whole)
    predict = perfect([(0, 0, width, height)], min_px=1)
    assert image_views(small, tiles) == [small]
    assert list(predict_tiled(predict, [small], tiles)) == list(predict([small]))
    labelled = LabelledImage(small, (Annotation(box((0, 0, 1, 1)), "x"),))
    assert labelled_views(labelled, tiles) == [labelled]


def test_predictions_are_streamed_in_the_order_of_the_images() -> None:
    tiles = Tiles(px=100, overlap=0.2)
    keys: list[str] = []
    images = [image(50, 50, "a"), image(250, 120, "b"), image(20, 90, "c")]
    predictions = predict_tiled(perfect([(10, 10, 20, 20)], keys=keys), iter(images), tiles)
    assert next(predictions).key == "a"
    assert keys == ["a"]
    assert [p.key for p in predictions] == ["b", "c"]
    assert len(keys) == len(set(keys)) == 1 + len(image_views(images[1], tiles)) + 1


def test_merged_prediction_has_the_key_version_and_routing_of_the_image() -> None:
    (prediction,) = predict_tiled(
        perfect([(10, 10, 20, 20), (150, 10, 170, 30)]), [image(200, 64)], Tiles(px=64)
    )
    assert prediction.key == "k"
    assert prediction.version == "m+b"
    assert prediction.routing == ROUTING
    assert prediction.uncertainty == pytest.approx(0.2)


def test_embedding_is_the_mean_over_the_views() -> None:
    vectors = np.eye(8, dtype=np.float32)
    plain = perfect([(10, 10, 20, 20)])

    def predict(views: Iterable[ImageRecord]) -> Iterator[Prediction]:
        for i, prediction in enumerate(plain(views)):
            yield replace(prediction, embedding=vectors[i])

    tiles = Tiles(px=64, whole=False)
    (merged,) = predict_tiled(predict, [image(120, 64)], tiles)
    count = len(image_views(image(120, 64), tiles))
    assert merged.embedding is not None
    assert merged.embedding.dtype == np.float32
    np.testing.assert_allclose(merged.embedding, [count**-0.5] * count + [0] * (8 - count), rtol=1e-6)
    assert next(predict_tiled(plain, [image(120, 64)], tiles)).embedding is None


def test_tile_is_read_from_its_region_of_the_file(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (150, 200, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "board.png")
    board = ImageRecord("k", "board.png", tmp_path / "board.png", 200, 150)
    for view in image_views(board, Tiles(px=64, overlap=0, whole=False)):
        assert view.region is not None
        left, top, right, bottom = view.region
        np.testing.assert_array_equal(LetterboxReader(64).read(view), pixels[top:bottom, left:right])
