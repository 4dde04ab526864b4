"""Tests of the input size that is chosen from images and defects."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dsmoe_core.config import ModelConfig, Tiles
from dsmoe_core.data.input_size import (
    choose_head_strides,
    choose_input_size,
    image_sizes,
    relative_thickness,
)
from dsmoe_core.schema import Box

NANO = ModelConfig()


@pytest.mark.parametrize(
    ("size", "defects", "px", "tiles"),
    [
        ((200, 200), [], 224, None),
        ((640, 480), [], 320, None),
        ((640, 480), [0.1] * 8, 320, None),
        ((640, 480), [0.0125] * 8, 480, None),
        ((640, 640), [0.005] * 8, 640, None),
        ((4000, 3000), [0.01] * 8, 608, None),
        ((4000, 3000), [0.002] * 8, 320, Tiles(px=427)),
        ((2000, 400), [], 320, Tiles(px=400)),
        ((200, 2000), [], 224, Tiles(px=200)),
        ((4000, 1500), [5 / 4000] * 8, 320, Tiles(px=267)),
        ((4000, 1500), [40 / 4000] * 8, 320, Tiles(px=1500)),
        ((4000, 1500), [1 / 4000] * 8, 320, Tiles(px=160)),
        ((200, 2000), [4 / 2000] * 8, 224, Tiles(px=149)),
    ],
)
def test_size_follows_images_and_defects(
    size: tuple[int, int], defects: list[float], px: int, tiles: Tiles | None
) -> None:
    chosen = choose_input_size([size], defects, NANO)
    assert (chosen.image_px, chosen.tiles) == (px, tiles)
    assert str(max(size)) in chosen.reason


@given(
    sizes=st.lists(st.tuples(st.integers(1, 9000), st.integers(1, 9000)), min_size=1, max_size=5),
    defects=st.lists(st.floats(1e-4, 1), max_size=5),
)
def test_any_choice_is_a_valid_network_no_larger_than_the_median_image(
    sizes: list[tuple[int, int]], defects: list[float]
) -> None:
    chosen = choose_input_size(sizes, defects, NANO)
    model = ModelConfig.model_validate(chosen.apply(NANO).model_dump())
    assert model.image_px <= 640
    if model.tiles is None:
        assert model.image_px < max(64, median(max(size) for size in sizes)) + 32


def test_sizes_are_read_from_the_readable_files(tmp_path: Path) -> None:
    for i in range(3):
        Image.new("RGB", (40, 30)).save(tmp_path / f"{i}.png")
    (tmp_path / "broken.png").write_bytes(b"not an image")
    assert image_sizes(sorted(tmp_path.iterdir())) == [(40, 30)] * 3


def test_thickness_is_relative_to_the_image() -> None:
    boxes = [(Box(0.0, 0.0, 20.0, 5.0), 100, 50), (Box(0.0, 0.0, 30.0, 40.0), 40, 80)]
    assert relative_thickness(boxes) == [0.05, 0.375]


@pytest.mark.parametrize(
    ("thickness", "tiles", "strides"),
    [
        (0.04, None, (4, 8, 16)),  # 13 px of 320
        (0.06, None, (8, 16)),  # 19 px
        (0.012, Tiles(px=160), (4, 8, 16)),  # 15 px, as the tiles are enlarged twice
        (0.013, Tiles(px=160), (8, 16)),
    ],
)
def test_the_finest_stride_is_for_small_defects(
    thickness: float, tiles: Tiles | None, strides: tuple[int, ...]
) -> None:
    model = NANO.model_copy(update={"tiles": tiles})
    assert choose_head_strides([(640, 480)], [thickness] * 20, model) == strides
    assert choose_head_strides([(640, 480)], [thickness] * 19, model) == (4, 8, 16)


def test_few_small_defects_of_many_keep_the_finest_stride() -> None:
    assert choose_head_strides([(640, 480)], [0.2] * 30 + [0.01] * 3, NANO) == (4, 8, 16)
    assert choose_head_strides([(640, 480)], [0.2] * 60 + [0.01] * 2, NANO) == (8, 16)
    base = ModelConfig.of_size("base")
    assert choose_head_strides([(640, 480)], [0.2] * 20, base) == (8, 16, 32)
