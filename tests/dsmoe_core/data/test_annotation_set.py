"""Pairing of annotations with images."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsmoe_core.data.annotation_set import AnnotationSet
from dsmoe_core.errors import FormatError
from dsmoe_core.schema import ImageRecord


def image(name: str, width: int, height: int) -> ImageRecord:
    return ImageRecord(name, name, Path(name), width, height)


def test_images_are_matched_by_name_in_their_own_order(small_set: AnnotationSet) -> None:
    images = [image("deep/b.jpg", 20, 50), image("new.png", 9, 9)]
    match = small_set.match(images)
    assert [labelled.image.name for labelled in match.labelled] == ["deep/b.jpg"]
    assert match.labelled[0].annotations == small_set.images[1].annotations
    assert match.missing == ("a.png",)


def test_size_before_exif_rotation_is_refused(small_set: AnnotationSet) -> None:
    with pytest.raises(FormatError, match=r"a\.png .* 40x30 .* 30x40.* EXIF"):
        small_set.match([image("a.png", 30, 40)])


def test_size_that_differs_from_the_image_is_refused(small_set: AnnotationSet) -> None:
    with pytest.raises(FormatError, match=r"a\.png .* 40x30 .* 80x60"):
        small_set.match([image("a.png", 80, 60)])
