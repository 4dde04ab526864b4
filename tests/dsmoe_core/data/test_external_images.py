"""Annotated images that are read where they lie."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsmoe_core.data.annotation_set import AnnotationSet, ImageAnnotations
from dsmoe_core.data.external_images import ExternalImages, SkippedImage, read_external_images
from dsmoe_core.errors import DataError, FormatError
from dsmoe_core.schema import Annotation, Box

BOX = Annotation(Box(1, 1, 5, 5), "spur")


def read(tmp_path: Path, *names: str, size: tuple[int, int] = (30, 20)) -> ExternalImages:
    known = AnnotationSet(("spur",), tuple(ImageAnnotations(name, *size, (BOX, BOX)) for name in names))
    (tmp_path / "scratch").mkdir(exist_ok=True)
    return read_external_images(known, tmp_path / "images", tmp_path / "scratch", max_pixels=10_000)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images" / "deep"
    folder.mkdir(parents=True)
    Image.new("RGB", (30, 20), "red").save(folder / "good.png")
    return tmp_path / "images"


def test_what_is_missing_damaged_odd_or_too_large_is_named_with_its_boxes(
    tmp_path: Path, images: Path
) -> None:
    (images / "torn.png").write_bytes((images / "deep" / "good.png").read_bytes()[:50])
    (images / "empty.jpg").touch()
    Image.new("L", (101, 100)).save(images / "huge.png")
    os.mkfifo(images / "pipe.png")  # reading it would wait for ever
    (tmp_path / "outside.png").write_bytes((images / "deep" / "good.png").read_bytes())
    (images / "link.png").symlink_to(tmp_path / "outside.png")
    wrong = ("torn.png", "gone.png", "empty.jpg", "huge.png", "pipe.png", "link.png", "deep")
    answer = read(tmp_path, "deep/good.png", *wrong)
    (good,) = answer.labelled
    assert good.image.name == good.image.key == "deep/good.png"
    assert good.annotations == (BOX, BOX)
    assert good.image.path == images / "deep" / "good.png"
    assert [one.name for one in answer.skipped] == list(wrong)
    assert {one.boxes for one in answer.skipped} == {2}
    assert answer.skipped[1] == SkippedImage("gone.png", "it cannot be read: No such file or directory", 2)


def test_what_a_workspace_would_convert_is_converted_beside_and_not_in_the_folder(
    tmp_path: Path, images: Path
) -> None:
    Image.fromarray(np.full((20, 30), 4095, dtype=np.uint16)).save(images / "deep" / "sixteen.png")
    before = sorted(images.rglob("*"))
    (image,) = read(tmp_path, "deep/sixteen.png").labelled
    assert image.image.path.parent == tmp_path / "scratch"
    with Image.open(image.image.path) as converted:
        assert (converted.mode, converted.getpixel((0, 0))) == ("RGB", (255, 255, 255))
    assert sorted(images.rglob("*")) == before


def test_one_image_under_two_names_counts_twice(tmp_path: Path, images: Path) -> None:
    (images / "again.png").write_bytes((images / "deep" / "good.png").read_bytes())
    answer = read(tmp_path, "deep/good.png", "again.png")
    assert len({p.image.key for p in answer.labelled}) == 2


def test_nothing_to_read_and_another_size_are_errors(tmp_path: Path, images: Path) -> None:
    with pytest.raises(DataError, match=r"none of 1 annotated images .*; gone\.png: it cannot be read"):
        read(tmp_path, "gone.png")
    with pytest.raises(DataError, match="none of 0"):
        read(tmp_path)
    with pytest.raises(FormatError, match="size of 60x40 pixels, but upright it has 30x20"):
        read(tmp_path, "deep/good.png", size=(60, 40))
    (images / "deep" / "good.png").unlink()
    (images / "deep").rmdir()
    images.rmdir()
    with pytest.raises(DataError, match="not a folder"):
        read(tmp_path, "deep/good.png")


def test_progress_is_told_of_every_image(tmp_path: Path, images: Path) -> None:
    steps: list[tuple[int, int]] = []
    names = tuple(ImageAnnotations(name, 30, 20, ()) for name in ("deep/good.png", "gone.png"))
    read_external_images(
        AnnotationSet(("spur",), names),
        images,
        tmp_path,
        max_pixels=10_000,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert steps == [(1, 2), (2, 2)]
