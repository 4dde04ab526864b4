"""Annotation sets drawn by hypothesis, and small images on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import strategies as st
from PIL import Image

from dsmoe_core.data.annotation_set import AnnotationSet, ImageAnnotations
from dsmoe_core.schema import Annotation, Box

LETTERS = st.characters(whitelist_categories=("Ll", "Lu", "Nd"), max_codepoint=0x4FFF)
WORDS = st.text(LETTERS, min_size=1, max_size=8)


# name, width, height, [(corners, label)]; plain values, because the type checks that dsmoe_core runs under
# use the `random` module, which hypothesis does not want inside a strategy.
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
def specs(draw: st.DrawFn, least: int = 0) -> Spec:
    """Sets with classes in any script, sub-folders and empty images; names differ beyond their ending."""
    classes = draw(st.lists(WORDS, min_size=1, max_size=4, unique=True))
    paths = st.lists(WORDS, min_size=1, max_size=3).map("/".join)
    images = []
    for stem in draw(st.lists(paths, min_size=least, max_size=4, unique_by=str.casefold)):
        width, height = draw(st.integers(1, 90)), draw(st.integers(1, 90))
        boxes = draw(st.lists(st.tuples(corners(width, height), st.sampled_from(classes)), max_size=4))
        images.append((stem + draw(st.sampled_from([".png", ".jpg"])), width, height, boxes))
    return classes, images


def build(spec: Spec) -> AnnotationSet:
    """The annotation set a spec describes."""
    classes, images = spec
    return AnnotationSet(
        tuple(classes),
        tuple(
            ImageAnnotations(name, width, height, tuple(Annotation(Box(*at), label) for at, label in boxes))
            for name, width, height, boxes in images
        ),
    )


def draw_images(annotations: AnnotationSet, folder: Path) -> None:
    """A grey image of the right size for every name of the set."""
    for image in annotations.images:
        path = folder / image.name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (image.width, image.height), 128).save(path)


def assert_equal_sets(read: AnnotationSet, written: AnnotationSet) -> None:
    """Same classes, images in any order, boxes equal to a millionth of a pixel."""
    assert read.classes == written.classes
    pairs = zip(
        sorted(read.images, key=lambda p: p.name),
        sorted(written.images, key=lambda p: p.name),
        strict=True,
    )
    for got, expected in pairs:
        assert (got.name, got.width, got.height) == (expected.name, expected.width, expected.height)
        assert [a.label for a in got.annotations] == [a.label for a in expected.annotations]
        for a, b in zip(got.annotations, expected.annotations, strict=True):
            assert a.box.corners == pytest.approx(b.box.corners, abs=1e-6)


@pytest.fixture
def small_set() -> AnnotationSet:
    """Two images, one in a sub-folder, three boxes, one class unused."""
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


@pytest.fixture
def draw() -> Callable[[AnnotationSet, Path], None]:
    return draw_images
