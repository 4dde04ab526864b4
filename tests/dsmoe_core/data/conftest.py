"""Random annotation sets, and small images on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import strategies as st
from PIL import Image

from dsmoe_core.data.annotation_set import AnnotationSet, ImageAnnotations
from dsmoe_core.schema import Annotation, Box

LETTERS = st.characters(whitelist_categories=("Ll", "Lu", "Nd"), max_codepoint=0x4FFF)
WORDS = st.text(LETTERS, min_size=1, max_size=8)


# Classes, then name, width, height and [(corners, label)] of each image. These are plain values because the
# run-time type checks of dsmoe_core use the `random` module, which hypothesis does not allow in a strategy.
Spec = tuple[list[str], list[tuple[str, int, int, list[tuple[tuple[float, ...], str]]]]]


@st.composite
def corners(draw: st.DrawFn, width: int, height: int) -> tuple[float, ...]:
    """Corners on a grid of quarter pixels, inside the image."""
    x1 = draw(st.integers(0, width * 4 - 1))
    y1 = draw(st.integers(0, height * 4 - 1))
    x2 = draw(st.integers(x1 + 1, width * 4))
    y2 = draw(st.integers(y1 + 1, height * 4))
    return (x1 / 4, y1 / 4, x2 / 4, y2 / 4)


@st.composite
def specs(draw: st.DrawFn, min_images: int = 0) -> Spec:
    """Sets with classes in any script, sub-folders and images without boxes; no two names share a stem."""
    classes = draw(st.lists(WORDS, min_size=1, max_size=4, unique=True))
    paths = st.lists(WORDS, min_size=1, max_size=3).map("/".join)
    images = []
    for stem in draw(st.lists(paths, min_size=min_images, max_size=4, unique_by=str.casefold)):
        width, height = draw(st.integers(1, 90)), draw(st.integers(1, 90))
        boxes = draw(st.lists(st.tuples(corners(width, height), st.sampled_from(classes)), max_size=4))
        images.append((stem + draw(st.sampled_from([".png", ".jpg"])), width, height, boxes))
    return classes, images


def build(spec: Spec) -> AnnotationSet:
    """The annotation set that a spec describes."""
    classes, images = spec
    return AnnotationSet(
        tuple(classes),
        tuple(
            ImageAnnotations(
                name, width, height, tuple(Annotation(Box(*corners), label) for corners, label in boxes)
            )
            for name, width, height, boxes in images
        ),
    )


def draw_images(annotations: AnnotationSet, folder: Path) -> None:
    """Write a grey image of the right size for every entry of the set."""
    for image in annotations.images:
        path = folder / image.name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (image.width, image.height), 128).save(path)


def assert_equal_sets(read: AnnotationSet, written: AnnotationSet) -> None:
    """Assert the same classes, images (in any order) and boxes (to a millionth of a pixel)."""
    assert read.classes == written.classes
    pairs = zip(
        sorted(read.images, key=lambda image: image.name),
        sorted(written.images, key=lambda image: image.name),
        strict=True,
    )
    for actual, expected in pairs:
        assert (actual.name, actual.width, actual.height) == (expected.name, expected.width, expected.height)
        assert [a.label for a in actual.annotations] == [a.label for a in expected.annotations]
        for a, b in zip(actual.annotations, expected.annotations, strict=True):
            assert a.box.corners == pytest.approx(b.box.corners, abs=1e-6)


@pytest.fixture
def small_set() -> AnnotationSet:
    """Two images, one of them in a sub-folder, with three boxes and an unused class."""
    return AnnotationSet(
        ("spur", "short", "unused"),
        (
            ImageAnnotations(
                "a.png",
                40,
                30,
                (
                    Annotation(Box(1.0, 2.0, 11.0, 22.0), "spur"),
                    Annotation(Box(0.0, 0.0, 40.0, 30.0), "short"),
                ),
            ),
            ImageAnnotations("deep/b.jpg", 20, 50, (Annotation(Box(3.5, 4.25, 8.0, 9.0), "short"),)),
        ),
    )
