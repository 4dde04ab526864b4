"""Labels of random boxes in two classes, and predictions of a detector that is right except for noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dsmoe_core.schema import (
    Annotation,
    Box,
    Detection,
    ImageRecord,
    LabelledImage,
    Prediction,
    Routing,
)

CLASSES = ("scratch", "dent")
SIDE = 400


def make_scene(
    images: int, seed: int = 0, *, confidence: float = 0.6
) -> tuple[list[LabelledImage], dict[str, Prediction]]:
    """Labelled images with six boxes each on a grid, and their predictions.

    Args:
        confidence: mean score of the detections, below ObjectLab's threshold of 0.95.
    """
    rng = np.random.default_rng(seed)
    labelled, predictions = [], {}
    for number in range(images):
        key = f"image-{number:03}"
        image = ImageRecord(key, f"{key}.png", Path(f"{key}.png"), SIDE, SIDE)
        annotations, detections = [], []
        for cell in range(6):
            x, y = 20 + 130 * (cell % 3), 20 + 190 * (cell // 3)
            box = Box(float(x), float(y), x + 60.0, y + 60.0)
            label = CLASSES[int(rng.integers(2))]
            annotations.append(Annotation(box, label))
            detections.append(_detection(box, label, confidence, rng))
        labelled.append(LabelledImage(image, tuple(annotations)))
        predictions[key] = Prediction(key, tuple(detections), Routing((), (), 0.0), 0.0, "m+b")
    return labelled, predictions


def _detection(box: Box, label: str, confidence: float, rng: np.random.Generator) -> Detection:
    moved = Box(*(float(v + rng.normal(0, 2)) for v in box.corners))
    score = float(np.clip(rng.normal(confidence, 0.05), 0.3, 0.99))
    other = next(name for name in CLASSES if name != label)
    probabilities = {label: score, other: float(rng.uniform(0.02, 0.15))}
    return Detection(moved, label, score, probabilities, 0.1)
