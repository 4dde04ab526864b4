"""Readers for images outside a workspace."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsmoe_core.data.annotation_set import AnnotationSet, ImageAnnotations
from dsmoe_core.data.external_images import ExternalImages, SkippedImage, read_external_images
from dsmoe_core.data.import_account import Reason
from dsmoe_core.errors import DataError
from dsmoe_core.schema import Annotation, Box

BOX = Annotation(Box(1, 1, 5, 5), "spur")


def read(tmp_path: Path, *names: str, size: tuple[int, int] = (30, 20)) -> ExternalImages:
    annotations = AnnotationSet(("spur",), tuple(ImageAnnotations(name, *size, (BOX, BOX)) for name in names))
    (tmp_path / "scratch").mkdir(exist_ok=True)
    return read_external_images(annotations, tmp_path / "images", tmp_path / "scratch", max_pixels=10_000)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images" / "deep"
    folder.mkdir(parents=True)
    Image.new("RGB", (30, 20), "red").save(folder / "good.png")
    return tmp_path / "images"


def test_images_that_cannot_be_read_are_skipped_and_named_with_their_boxes(
    tmp_path: Path, images: Path
) -> None:
    (images / "torn.png").write_bytes((images / "deep" / "good.png").read_bytes()[:50])
    (images / "empty.jpg").touch()
    Image.new("L", (101, 100)).save(images / "huge.png")
    os.mkfifo(images / "pipe.png")  # reading it would block
    (tmp_path / "outside.png").write_bytes((images / "deep" / "good.png").read_bytes())
    (images / "link.png").symlink_to(tmp_path / "outside.png")
    wrong = ("torn.png", "gone.png", "empty.jpg", "huge.png", "pipe.png", "link.png", "deep")
    result = read(tmp_path, "deep/good.png", *wrong)
    (good,) = result.labelled
    assert good.image.name == good.image.key == "deep/good.png"
    assert good.annotations == (BOX, BOX)
    assert good.image.path == images / "deep" / "good.png"
    assert [image.name for image in result.skipped] == list(wrong)
    assert {image.boxes for image in result.skipped} == {2}
    assert result.skipped[1] == SkippedImage("gone.png", Reason.NO_IMAGE, 2)
    assert result.account.images_left_out == 7


def test_converted_images_are_written_to_the_scratch_folder_only(tmp_path: Path, images: Path) -> None:
    Image.fromarray(np.full((20, 30), 4095, dtype=np.uint16)).save(images / "deep" / "sixteen.png")
    before = sorted(images.rglob("*"))
    (image,) = read(tmp_path, "deep/sixteen.png").labelled
    assert image.image.path.parent == tmp_path / "scratch"
    with Image.open(image.image.path) as converted:
        assert (converted.mode, converted.getpixel((0, 0))) == ("RGB", (255, 255, 255))
    assert sorted(images.rglob("*")) == before


def test_same_content_under_two_names_gives_two_images(tmp_path: Path, images: Path) -> None:
    (images / "again.png").write_bytes((images / "deep" / "good.png").read_bytes())
    result = read(tmp_path, "deep/good.png", "again.png")
    assert len({labelled.image.key for labelled in result.labelled}) == 2
    assert result.account.notes == ()


def test_same_content_with_different_boxes_is_named(tmp_path: Path, images: Path) -> None:
    (images / "again.png").write_bytes((images / "deep" / "good.png").read_bytes())
    Image.new("RGB", (30, 20), "blue").save(images / "blue.png")
    entries = (
        ImageAnnotations("deep/good.png", 30, 20, (BOX,)),
        ImageAnnotations("blue.png", 30, 20, ()),
        ImageAnnotations("again.png", 30, 20, ()),
    )
    result = read_external_images(AnnotationSet(("spur",), entries), images, tmp_path, max_pixels=10_000)
    assert len(result.labelled) == 3
    (note,) = result.account.notes
    assert "deep/good.png" in note
    assert "again.png" in note


def test_names_in_other_spellings_are_read_and_unlabelled_images_named(tmp_path: Path, images: Path) -> None:
    Image.new("RGB", (30, 20), "blue").save(images / "new.png")
    (images / "notes.txt").write_text("hello")
    result = read(tmp_path, "C:\\photos\\deep\\good.png", "/etc/passwd", "../../etc/passwd")
    assert [labelled.image.name for labelled in result.labelled] == ["deep/good.png"]
    assert [image.name for image in result.skipped] == ["/etc/passwd", "../../etc/passwd"]
    assert result.account.images_without_labels == ("new.png",)


def test_folder_without_readable_images_and_wrong_size_are_refused(tmp_path: Path, images: Path) -> None:
    with pytest.raises(DataError, match=r"1 .*gone\.png"):
        read(tmp_path, "gone.png")
    with pytest.raises(DataError, match=str(images)):
        read(tmp_path)
    with pytest.raises(DataError, match=r"60x40 .*30x20"):
        read(tmp_path, "deep/good.png", size=(60, 40))
    (images / "deep" / "good.png").unlink()
    (images / "deep").rmdir()
    images.rmdir()
    with pytest.raises(DataError, match=str(images)):
        read(tmp_path, "deep/good.png")


def test_progress_is_reported_for_every_image(tmp_path: Path, images: Path) -> None:
    steps: list[tuple[int, int]] = []
    names = tuple(ImageAnnotations(name, 30, 20, ()) for name in ("deep/good.png", "gone.png"))
    read_external_images(
        AnnotationSet(("spur",), names),
        images,
        tmp_path,
        max_pixels=10_000,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert steps == [(1, 1)]
