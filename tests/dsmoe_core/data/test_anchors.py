"""K-means over box sizes, and the recommended head stride and tile size."""

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


def test_three_clusters_are_found_with_every_seed() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[8.0, 8.0], [60.0, 20.0], [100.0, 100.0]])
    sizes = np.concatenate(
        [centre * rng.uniform(0.95, 1.05, (n, 2)) for centre, n in zip(centres, (60, 30, 10), strict=True)]
    )
    for seed in range(3):
        clusters = kmeans(sizes, 3, seed)
        np.testing.assert_allclose(clusters.sizes, centres, rtol=0.02)
        np.testing.assert_allclose(clusters.shares, [0.6, 0.3, 0.1])
        assert clusters.mean_best_iou > 0.9


@settings(deadline=None)
@given(SIZES, st.integers(1, 9), st.integers(0, 99))
def test_means_are_within_the_sizes_and_deterministic(sizes: np.ndarray, k: int, seed: int) -> None:
    clusters, repeated = kmeans(sizes, k, seed), kmeans(sizes, k, seed)
    np.testing.assert_array_equal(clusters.sizes, repeated.sizes)
    assert len(clusters.sizes) == min(k, len(np.unique(sizes, axis=0)))
    assert (clusters.sizes >= sizes.min(0) - 1e-9).all()
    assert (clusters.sizes <= sizes.max(0) + 1e-9).all()
    assert clusters.shares.sum() == pytest.approx(1.0)
    assert 0 < clusters.mean_best_iou <= 1 + 1e-9


def test_as_many_means_as_sizes_fit_them_exactly() -> None:
    assert kmeans(np.array([[3.0, 4.0], [10.0, 4.0], [3.0, 4.0]]), 5, 0).mean_best_iou == pytest.approx(1.0)


@pytest.mark.parametrize(("width", "height", "stride"), [(3, 5, 8), (20, 5, 8), (6, 6, 4), (2, 2, 32)])
def test_off_grid_share_equals_a_simulation_of_random_positions(width: int, height: int, stride: int) -> None:
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, stride, (20_000, 2))
    first = np.ceil(corner / stride - 0.5) * stride + stride / 2  # the first centre right of and below it
    hit = (first < corner + np.array([width, height])).all(1).mean()
    assert off_grid_share(np.array([[width, height]], np.float64), stride) == pytest.approx(1 - hit, abs=0.02)


def square_boxes(box_px: float, image_px: int) -> BoxSizes:
    annotations = (Annotation(Box(0.0, 0.0, box_px, box_px), "x"),) * 50
    return BoxSizes.of([(image_px, image_px // 2, annotations)])


def test_sizes_at_the_network_input_are_letterboxed_and_larger_with_tiles() -> None:
    sizes = square_boxes(30, 3000)
    assert sizes.at_network_input(300)[0].tolist() == [3.0, 3.0]
    assert sizes.at_network_input(300, tile_px=600)[0].tolist() == [15.0, 15.0]
    assert sizes.at_network_input(300, tile_px=9000)[0].tolist() == [3.0, 3.0]


@pytest.mark.parametrize(
    ("box_px", "max_stride", "tile_px"),
    [(100, 32, None), (40, 8, None), (30, 8, None), (16, 4, 640), (4, None, 160), (0.5, None, None)],
)
def test_recommendation_is_the_required_stride_or_tile(
    box_px: float, max_stride: int | None, tile_px: int | None
) -> None:
    recommendation = recommend(square_boxes(box_px, 1000), side=320, head_strides=(8, 16))
    assert recommendation == (max_stride, tile_px)
    if tile_px is not None:
        assert off_grid_share(square_boxes(box_px, 1000).at_network_input(320, tile_px), 8) <= MAX_OFF_GRID
