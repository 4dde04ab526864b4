"""Two images show the same after compression, noise or a change of brightness, but not with a defect."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from dsmoe_core.data.same_pixels import PixelComparison
from dsmoe_core.schema import ImageRecord

Change = Callable[[Image.Image], Image.Image]


def board(defect: bool) -> Image.Image:
    """A textured image of 400 x 300 px, with or without a dark spot of 6 px."""
    rng = np.random.default_rng(7)
    grey = np.kron(rng.integers(60, 200, (30, 40)), np.ones((10, 10))).astype(np.uint8)
    if defect:
        grey[140:146, 200:206] = 20
    return Image.fromarray(grey).convert("RGB")


def record(path: Path, image: Image.Image, quality: int = 75) -> ImageRecord:
    image.save(path, quality=quality)
    return ImageRecord(path.name.ljust(64, "0"), path.name, path, image.width, image.height)


def noisy(image: Image.Image) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, 4, (image.height, image.width, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda image: image, True),
        (noisy, True),
        (lambda image: ImageEnhance.Brightness(image).enhance(1.08), True),
        (lambda image: ImageEnhance.Contrast(image).enhance(0.8), True),
        (lambda image: Image.fromarray(np.roll(np.asarray(image), 2, 1)), False),
        (lambda image: image.crop((0, 0, 300, 300)), False),
        (lambda _: board(defect=True), False),
    ],
    ids=["equal", "noise", "brighter", "less contrast", "shifted", "other proportions", "a defect"],
)
def test_what_counts_as_the_same(tmp_path: Path, change: Change, same: bool) -> None:
    one = record(tmp_path / "one.png", board(defect=False))
    other = record(tmp_path / "other.png", change(board(defect=False)))
    assert PixelComparison().same(one, other) is same


def test_a_jpeg_shows_the_same_as_its_original(tmp_path: Path) -> None:
    one = record(tmp_path / "one.png", board(defect=False))
    assert PixelComparison().same(one, record(tmp_path / "other.jpg", board(defect=False), quality=85))


def test_uniform_images_are_the_same(tmp_path: Path) -> None:
    paths = (tmp_path / "dark.png", tmp_path / "light.png")
    records = [
        record(path, Image.new("RGB", (64, 64), (v, v, v))) for path, v in zip(paths, (90, 120), strict=True)
    ]
    assert PixelComparison().same(*records)
