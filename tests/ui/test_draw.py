"""Rendering of boxes on images."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dsmoe_core.schema import Annotation, Box, Detection
from ui.draw import UNKNOWN_CLASS, render_boxes

COLOURS = {"dent": "#d00000"}


def decoded(jpeg: bytes) -> Image.Image:
    return Image.open(io.BytesIO(jpeg)).convert("RGB")


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plate") / "grey.png"
    Image.new("L", (100, 50), 128).save(path)
    return path


def is_near(pixel: object, colour: tuple[int, ...]) -> bool:
    assert isinstance(pixel, tuple)
    return all(abs(a - b) < 60 for a, b in zip(pixel, colour, strict=True))


def test_annotation_is_a_solid_box_in_the_colour_of_its_class(plate: Path) -> None:
    box = Box(40.0, 20.0, 80.0, 40.0)
    image = decoded(render_boxes(plate, [Annotation(box, "dent")], [], COLOURS, width=400))
    assert image.size == (400, 200)
    assert is_near(image.getpixel((162, 120)), (208, 0, 0))  # left side
    assert is_near(image.getpixel((318, 120)), (208, 0, 0))  # right side
    assert is_near(image.getpixel((240, 120)), (128, 128, 128))  # inside
    assert is_near(image.getpixel((20, 20)), (128, 128, 128))  # outside


def test_detection_is_a_dashed_box_and_grey_if_its_class_is_not_in_the_class_book(plate: Path) -> None:
    detection = Detection(Box(40.0, 20.0, 80.0, 40.0), "gone", 0.5, {"gone": 0.5}, 0.1)
    image = decoded(render_boxes(plate, [], [detection], COLOURS, width=400))
    side = [image.getpixel((160, y)) for y in range(82, 158)]
    grey = tuple(int(UNKNOWN_CLASS[i : i + 2], 16) for i in (1, 3, 5))
    assert any(is_near(pixel, (255, 255, 255)) for pixel in side)  # gaps
    assert any(is_near(pixel, grey) for pixel in side)


@settings(max_examples=25, deadline=None)
@given(
    st.floats(-20, 119), st.floats(-20, 69), st.floats(0.01, 200), st.floats(0.01, 200), st.text(max_size=60)
)
def test_any_box_and_any_name_can_be_rendered(
    plate: Path, x: float, y: float, width: float, height: float, name: str
) -> None:
    box = Box(x, y, x + width, y + height)
    detection = Detection(box, name, 0.5, {name: 0.5}, 0.1)
    assert decoded(render_boxes(plate, [Annotation(box, name)], [detection], COLOURS)).size == (480, 240)


def test_missing_image_raises_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="gone"):
        render_boxes(tmp_path / "gone.png", [], [], COLOURS)
