"""Bringing annotations and images together."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsmoe_core.data import coco, voc, yolo
from dsmoe_core.data.annotation_set import AnnotationSet
from dsmoe_core.data.formats import read_annotations
from dsmoe_core.errors import FormatError
from dsmoe_core.schema import ImageRecord

from .conftest import assert_equal_sets, draw_images


def image(name: str, width: int, height: int) -> ImageRecord:
    return ImageRecord(name, name, Path(name), width, height)


def test_matches_by_name_in_the_order_of_the_images(small_set: AnnotationSet) -> None:
    images = [image("deep/b.jpg", 20, 50), image("new.png", 9, 9)]
    match = small_set.match(images)
    assert [p.image.name for p in match.labelled] == ["deep/b.jpg"]
    assert match.labelled[0].annotations == small_set.images[1].annotations
    assert match.missing == ("a.png",)


def test_a_size_from_before_the_exif_rotation_is_refused(small_set: AnnotationSet) -> None:
    with pytest.raises(FormatError, match=r"a.png a size of 40x30 .* 30x40: .* before its EXIF rotation"):
        small_set.match([image("a.png", 30, 40)])


def test_another_size_is_refused(small_set: AnnotationSet) -> None:
    with pytest.raises(FormatError, match=r"a size of 40x30 pixels, but upright it has 80x60"):
        small_set.match([image("a.png", 80, 60)])


@pytest.mark.parametrize("kind", ["coco", "voc", "yolo"])
def test_the_format_is_found_by_what_lies_there(tmp_path: Path, small_set: AnnotationSet, kind: str) -> None:
    draw_images(small_set, tmp_path / "images")
    path = tmp_path / "train.json" if kind == "coco" else tmp_path / "labelled"
    {"coco": coco.write, "voc": voc.write, "yolo": yolo.write}[kind](small_set, path)
    assert_equal_sets(read_annotations(path, tmp_path / "images"), small_set)


def test_nothing_to_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="holds no annotations"):
        read_annotations(tmp_path, tmp_path)
    with pytest.raises(FormatError, match="does not exist"):
        read_annotations(tmp_path / "gone", tmp_path)
