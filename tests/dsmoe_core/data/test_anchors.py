"""K-means on sizes, and what follows from the sizes for the head."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsmoe_core.data.anchors import MAX_OFF_GRID, BoxSizes, kmeans, off_grid_share, recommend
from dsmoe_core.schema import Annotation, Box

SIZES = st.lists(st.tuples(st.integers(1, 200), st.integers(1, 200)), min_size=1, max_size=30).map(
    lambda rows: np.array(rows, np.float64)
)


def test_three_heaps_are_found_whatever_the_seed() -> None:
    rng = np.random.default_rng(0)
    heaps = np.array([[8.0, 8.0], [60.0, 20.0], [100.0, 100.0]])
    sizes = np.concatenate(
        [heap * rng.uniform(0.95, 1.05, (n, 2)) for heap, n in zip(heaps, (60, 30, 10), strict=True)]
    )
    for seed in range(3):
        found = kmeans(sizes, 3, seed)
        np.testing.assert_allclose(found.sizes, heaps, rtol=0.02)
        np.testing.assert_allclose(found.shares, [0.6, 0.3, 0.1])
        assert found.mean_best_iou > 0.9


@settings(deadline=None)
@given(SIZES, st.integers(1, 9), st.integers(0, 99))
def test_means_lie_among_the_sizes_and_repeat_themselves(sizes: np.ndarray, k: int, seed: int) -> None:
    found, again = kmeans(sizes, k, seed), kmeans(sizes, k, seed)
    np.testing.assert_array_equal(found.sizes, again.sizes)
    assert len(found.sizes) == min(k, len(np.unique(sizes, axis=0)))
    assert (found.sizes >= sizes.min(0) - 1e-9).all()
    assert (found.sizes <= sizes.max(0) + 1e-9).all()
    assert found.shares.sum() == pytest.approx(1.0)
    assert 0 < found.mean_best_iou <= 1 + 1e-9


def test_as_many_means_as_sizes_meet_them_all() -> None:
    assert kmeans(np.array([[3.0, 4.0], [10.0, 4.0], [3.0, 4.0]]), 5, 0).mean_best_iou == pytest.approx(1.0)


@pytest.mark.parametrize(("width", "height", "stride"), [(3, 5, 8), (20, 5, 8), (6, 6, 4), (2, 2, 32)])
def test_lost_is_what_throwing_boxes_on_the_grid_gives(width: int, height: int, stride: int) -> None:
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, stride, (20_000, 2))
    first = np.ceil(corner / stride - 0.5) * stride + stride / 2  # the first centre right of and below it
    hit = (first < corner + np.array([width, height])).all(1).mean()
    assert off_grid_share(np.array([[width, height]], np.float64), stride) == pytest.approx(1 - hit, abs=0.02)


def sizes_of(box_px: float, image_px: int) -> BoxSizes:
    found = (Annotation(Box(0.0, 0.0, box_px, box_px), "x"),) * 50
    return BoxSizes.of([(image_px, image_px // 2, found)])


def test_sizes_are_letter_boxed_and_tiles_enlarge_them() -> None:
    sizes = sizes_of(30, 3000)
    assert sizes.at_network_input(300)[0].tolist() == [3.0, 3.0]
    assert sizes.at_network_input(300, tile_px=600)[0].tolist() == [15.0, 15.0]
    assert sizes.at_network_input(300, tile_px=9000)[0].tolist() == [3.0, 3.0]


@pytest.mark.parametrize(
    ("box_px", "finest", "tile"),
    [(100, 32, None), (40, 8, None), (30, 8, None), (16, 4, 640), (4, None, 160), (0.5, None, None)],
)
def test_advice_names_the_stride_or_the_tile_that_is_needed(
    box_px: float, finest: int | None, tile: int | None
) -> None:
    found = recommend(sizes_of(box_px, 1000), side=320, head_strides=(8, 16))
    assert found == (finest, tile)
    if tile is not None:
        assert off_grid_share(sizes_of(box_px, 1000).at_network_input(320, tile), 8) <= MAX_OFF_GRID
