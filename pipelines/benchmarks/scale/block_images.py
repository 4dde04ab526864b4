"""Labelled images of coloured blocks on grey, which are made in a millisecond each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dsmoe_core.data import coco
from dsmoe_core.data.annotation_set import AnnotationSet, ImageAnnotations
from dsmoe_core.schema import Annotation, Box

COLOURS = {"rust": (210, 60, 40), "moss": (60, 150, 70), "plum": (120, 50, 160)}
"""Colour by class."""
MAX_BLOCKS = 4


def write_block_images(folder: Path, train: int, val: int, px: int, seed: int) -> None:
    """Write images/, train.json and val.json (COCO); every image has one to MAX_BLOCKS blocks.

    Args:
        train, val: number of images.
        px: side of the images in pixels, at least 64.
        seed: of everything.
    """
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for part, count in (("train", train), ("val", val)):
        entries = []
        for number in range(count):
            name = f"{part}_{number:05d}.png"
            pixels, annotations = _blocks(px, rng)
            Image.fromarray(pixels).save(folder / "images" / name, compress_level=1)
            entries.append(ImageAnnotations(name, px, px, annotations))
        coco.write(AnnotationSet(tuple(COLOURS), tuple(entries)), folder / f"{part}.json")


def _blocks(px: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], tuple[Annotation, ...]]:
    """Pixels (px, px, 3), uint8, and the boxes: one block at most in each quarter of the image."""
    pixels = rng.integers(118, 138, (px, px, 3), dtype=np.uint8)
    half, annotations = px // 2, []
    for quarter in rng.permutation(4)[: rng.integers(1, MAX_BLOCKS + 1)].tolist():
        label = str(rng.choice(list(COLOURS)))
        side = int(rng.integers(half // 4, half // 2))
        x, y = (int(v) for v in rng.integers(4, half - side - 4, 2))
        x, y = x + half * (quarter % 2), y + half * (quarter // 2)
        colour = np.array(COLOURS[label]) + rng.integers(-20, 21, 3)
        pixels[y : y + side, x : x + side] = colour.astype(np.uint8)
        annotations.append(Annotation(Box(float(x), float(y), float(x + side), float(y + side)), label))
    return pixels, tuple(annotations)
