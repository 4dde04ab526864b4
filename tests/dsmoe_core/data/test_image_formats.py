"""Registry of the image formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from dsmoe_core.data import image_formats, yolo
from dsmoe_core.data.decode import decode, upright_size
from dsmoe_core.data.external_images import read_external_folder
from dsmoe_core.data.image_folder import ingest_folder
from dsmoe_core.data.image_formats import IMAGE_FORMATS, ImageFormat, open_image
from dsmoe_core.errors import ImageError

SUFFIXES = [(image_format, suffix) for image_format in IMAGE_FORMATS for suffix in image_format.suffixes]


@pytest.mark.parametrize(("image_format", "suffix"), SUFFIXES, ids=[suffix for _, suffix in SUFFIXES])
def test_each_format_is_recognised_by_content_and_decoded(
    tmp_path: Path, image_format: ImageFormat, suffix: str
) -> None:
    Image.new("RGB", (30, 20), (200, 40, 40)).save(tmp_path / f"a{suffix}")
    path = (tmp_path / f"a{suffix}").rename(tmp_path / "image")
    recognised, image = open_image(path)
    with image:
        assert recognised is image_format
    decoded = decode(path, max_pixels=1000)
    assert upright_size(path) == (decoded.width, decoded.height) == (30, 20)
    assert (decoded.converted is None) == (image_format.kept_suffix is not None)
    assert decoded.suffix == (image_format.kept_suffix or ".png")


def open_array(path: Path) -> Image.Image:
    """Opens an array that NumPy saved."""
    try:
        return Image.fromarray(np.load(path))
    except ValueError:
        raise UnidentifiedImageError(str(path)) from None


def test_one_more_entry_is_enough_for_a_new_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, scratch = tmp_path / "images", tmp_path / "scratch"
    images.mkdir()
    scratch.mkdir()
    pixels = np.full((20, 30, 3), 90, dtype=np.uint8)
    np.save(images / "a.npy", pixels)
    Image.new("L", (9, 9)).save(images / "b.png")
    (tmp_path / "classes.txt").write_text("spur\n")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 1 1\n")

    with pytest.raises(ImageError):
        decode(images / "a.npy", max_pixels=1000)
    assert yolo.read(tmp_path, images).images == ()
    monkeypatch.setattr(
        image_formats, "IMAGE_FORMATS", (*IMAGE_FORMATS, ImageFormat("NumPy", (".npy",), open_array))
    )
    (labelled,) = yolo.read(tmp_path, images).images
    assert (labelled.name, labelled.width, labelled.height) == ("a.npy", 30, 20)
    for result in (
        ingest_folder(images, tmp_path / "store", max_pixels=1000),
        read_external_folder(images, scratch, max_pixels=1000),
    ):
        assert [image.name for image in result.images] == ["a.npy", "b.png"]
        with Image.open(result.images[0].path) as converted:
            assert converted.format == "PNG"
            np.testing.assert_array_equal(np.asarray(converted), pixels)
