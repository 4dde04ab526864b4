"""Boxes on images."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dsmoe_core.schema import Annotation, Box, Detection
from ui.draw import UNKNOWN, drawn

COLOURS = {"dent": "#d00000"}


def drawn_image(answer: bytes) -> Image.Image:
    return Image.open(io.BytesIO(answer)).convert("RGB")


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plate") / "grey.png"
    Image.new("L", (100, 50), 128).save(path)
    return path


def near(pixel: object, colour: tuple[int, int, int]) -> bool:
    assert isinstance(pixel, tuple)
    return all(abs(a - b) < 60 for a, b in zip(pixel, colour, strict=True))


def test_boxes_are_drawn_in_the_classes_colours_at_their_places(plate: Path) -> None:
    box = Box(40.0, 20.0, 80.0, 40.0)
    image = drawn_image(drawn(plate, [Annotation(box, "dent")], [], COLOURS, width=400))
    assert image.size == (400, 200)
    assert near(image.getpixel((162, 120)), (208, 0, 0))  # its left side
    assert near(image.getpixel((318, 120)), (208, 0, 0))  # its right side
    assert near(image.getpixel((240, 120)), (128, 128, 128))  # nothing within
    assert near(image.getpixel((20, 20)), (128, 128, 128))  # nothing elsewhere


def test_detections_are_drawn_broken_and_a_class_gone_from_the_book_in_grey(plate: Path) -> None:
    detection = Detection(Box(40.0, 20.0, 80.0, 40.0), "gone", 0.5, {"gone": 0.5}, 0.1)
    image = drawn_image(drawn(plate, [], [detection], COLOURS, width=400))
    side = [image.getpixel((160, y)) for y in range(82, 158)]
    grey = tuple(int(UNKNOWN[i : i + 2], 16) for i in (1, 3, 5))
    assert any(near(pixel, (255, 255, 255)) for pixel in side)  # gaps
    assert any(near(pixel, grey) for pixel in side)


@settings(max_examples=25, deadline=None)
@given(
    st.floats(-20, 119), st.floats(-20, 69), st.floats(0.01, 200), st.floats(0.01, 200), st.text(max_size=60)
)
def test_any_box_and_any_name_can_be_drawn(
    plate: Path, x: float, y: float, wide: float, high: float, name: str
) -> None:
    box = Box(x, y, x + wide, y + high)
    detection = Detection(box, name, 0.5, {name: 0.5}, 0.1)
    assert drawn_image(drawn(plate, [Annotation(box, name)], [detection], COLOURS)).size == (480, 240)


def test_a_image_that_is_gone_is_an_error_to_be_shown(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="gone"):
        drawn(tmp_path / "gone.png", [], [], COLOURS)
