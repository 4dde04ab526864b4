"""A tiny detector, a tiny text encoder and a few drawn images."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsmoe_core.schema import (
    Annotation,
    Box,
    ClassText,
    ImageRecord,
    LabelledImage,
    LabelledSet,
    Vocabulary,
)


@pytest.fixture
def vocabulary() -> Vocabulary:
    dark = ClassText("dark", "a dark square", "mark", ("a black block",))
    return Vocabulary(
        (dark, ClassText("light", "a light square", "mark")), (ClassText("mark", "a square"),), "v1"
    )


@pytest.fixture
def images(tmp_path: Path) -> list[LabelledImage]:
    """Grey images with one dark or light square each; the last shows none."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(6):
        pixels = rng.integers(110, 140, (80, 100, 3), dtype=np.uint8)
        x, y = int(rng.integers(5, 60)), int(rng.integers(5, 50))
        annotations: tuple[Annotation, ...] = ()
        if i < 5:
            pixels[y : y + 20, x : x + 24] = 10 if i % 2 else 245
            box = Box(float(x), float(y), float(x + 24), float(y + 20))
            annotations = (Annotation(box, "dark" if i % 2 else "light"),)
        path = tmp_path / f"{i}.png"
        Image.fromarray(pixels).save(path)
        key = hashlib.sha256(path.read_bytes()).hexdigest()
        made.append(LabelledImage(ImageRecord(key, path.name, path, 100, 80), annotations))
    return made


@pytest.fixture
def bars(tmp_path: Path) -> LabelledSet:
    """Another trade: black images with a white bar or block each, in words of their own."""
    rng = np.random.default_rng(1)
    shapes = {"flat": (30, 8), "upright": (8, 30), "block": (24, 24)}
    book = Vocabulary(tuple(ClassText(name, f"{name} and white on black") for name in shapes), version="v2")
    made = []
    for i, (name, (width, height)) in enumerate([*shapes.items(), ("flat", (30, 8))]):
        pixels = np.zeros((90, 90, 3), np.uint8)
        x, y = int(rng.integers(5, 50)), int(rng.integers(5, 50))
        pixels[y : y + height, x : x + width] = 255
        path = tmp_path / f"bar-{i}.png"
        Image.fromarray(pixels).save(path)
        box = Box(float(x), float(y), float(x + width), float(y + height))
        made.append(LabelledImage(ImageRecord(f"bar{i}", path.name, path, 90, 90), (Annotation(box, name),)))
    return LabelledSet(made, book)
