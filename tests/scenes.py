"""Synthetic ground truth and predictions, so that evaluation code can be tested without a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from dsmoe_core.schema import Annotation, Box, Detection, ImageRecord, LabelledImage, Prediction, Routing

CLASSES = ("spur", "short", "hole")
SIDE = 200
"""Width and height of every image in pixels."""

Scene = tuple[dict[str, Prediction], list[LabelledImage]]
"""Predictions by image key, and the ground truth."""


def labelled(key: str, *truth: tuple[Box, str]) -> LabelledImage:
    """An image with these ground-truth boxes and classes."""
    image = ImageRecord(key, f"{key}.png", Path(f"{key}.png"), SIDE, SIDE)
    return LabelledImage(image, tuple(Annotation(box, label) for box, label in truth))


def prediction(key: str, *rows: tuple[Box, str, float]) -> Prediction:
    """The prediction of an image with these boxes, classes and scores."""
    detections = tuple(Detection(box, label, score, {label: score}, 0.0) for box, label, score in rows)
    return Prediction(key, detections, Routing((0,), (1.0,), 0.0), 0.0, "m+b")


def random_scene(seed: int, images: int = 12) -> Scene:
    """Random boxes with detections that are correct, shifted, of a wrong class, duplicate, false or missing.

    All scores differ.
    """
    rng = np.random.default_rng(seed)
    predictions, truth = {}, []
    for number in range(images):
        key = f"p{number}"
        boxes = [(_random_box(rng), str(rng.choice(CLASSES))) for _ in range(rng.integers(0, 5))]
        rows = [
            (_shifted(rng, box), str(rng.choice(CLASSES)) if rng.random() < 0.3 else label)
            for box, label in boxes
            for _ in range(rng.choice([0, 1, 1, 1, 2]))
        ]
        rows += [(_random_box(rng), str(rng.choice(CLASSES))) for _ in range(rng.integers(0, 4))]
        scored = [(box, label, float(rng.uniform(0.05, 1))) for box, label in rows]
        predictions[key] = prediction(key, *sorted(scored, key=lambda row: -row[2]))
        truth.append(labelled(key, *boxes))
    return predictions, truth


def _random_box(rng: np.random.Generator) -> Box:
    side = np.exp(rng.uniform(np.log(10), np.log(150), 2))
    x, y = rng.uniform(0, SIDE - side)
    return Box(float(x), float(y), float(x + side[0]), float(y + side[1]))


def _shifted(rng: np.random.Generator, box: Box) -> Box:
    dx, dy = rng.normal(0, 0.15 * box.width), rng.normal(0, 0.15 * box.height)
    return Box(box.x1 + dx, box.y1 + dy, box.x2 + dx, box.y2 + dy)


def resampled_scene(scene: Scene, counts: Sequence[int]) -> Scene:
    """Repeat each image ``counts`` times; the copies have different keys."""
    predictions, truth = scene
    copies = [(p, f"{p.image.key}-{i}") for p, n in zip(truth, counts, strict=True) for i in range(n)]
    return (
        {key: replace(predictions[p.image.key], key=key) for p, key in copies},
        [replace(p, image=replace(p.image, key=key, name=key)) for p, key in copies],
    )


_RANGES = (3, 2, 8, 8, 5, 5, len(CLASSES), 3)
"""Of one box: image, truth or detection, left, top, width, height, class, score."""
scene_numbers = st.lists(st.integers(0, int(np.prod(_RANGES)) - 1), max_size=18)
"""Input of :func:`scene_from_numbers`; integers are fast to generate and to shrink."""


def scene_from_numbers(numbers: Sequence[int]) -> Scene:
    """Three images with small integer boxes, of which many overlap or are equal in all values."""
    predictions, truth = {}, []
    rows = [[int(v) for v in np.unravel_index(number, _RANGES)] for number in numbers]
    boxes = [(r, Box(float(r[2]), float(r[3]), r[2] + r[4] + 1.0, r[3] + r[5] + 1.0)) for r in rows]
    for i in range(3):
        on_image = [(r[1], box, CLASSES[r[6]], (0.1, 0.5, 0.9)[r[7]]) for r, box in boxes if r[0] == i]
        predictions[f"p{i}"] = prediction(f"p{i}", *(row[1:] for row in on_image if row[0]))
        truth.append(labelled(f"p{i}", *(row[1:3] for row in on_image if not row[0])))
    return predictions, truth
