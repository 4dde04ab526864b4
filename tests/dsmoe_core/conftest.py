"""A tiny detector, a tiny text encoder and a few drawn pictures."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsmoe_core.schema import Annotation, Box, ClassText, LabelledPicture, Picture, Vocabulary


@pytest.fixture
def vocabulary() -> Vocabulary:
    dark = ClassText("dark", "a dark square", "mark", ("a black block",))
    return Vocabulary(
        (dark, ClassText("light", "a light square", "mark")), (ClassText("mark", "a square"),), "v1"
    )


@pytest.fixture
def pictures(tmp_path: Path) -> list[LabelledPicture]:
    """Grey pictures with one dark or light square each; the last shows none."""
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
        made.append(LabelledPicture(Picture(key, path.name, path, 100, 80), annotations))
    return made
