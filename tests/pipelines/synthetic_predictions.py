"""Test sets and predictions of models whose quality is known, for tests of comparisons."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from dsmoe_core.schema import Annotation, Box, Detection, ImageRecord, LabelledImage, Prediction, Routing

CLASSES = ("open", "short", "spur", "pin_hole")
SIDE = 640


def make_truth(
    images: int, seed: int = 0, *, boxes: int = 4, classes: Sequence[str] = CLASSES
) -> list[LabelledImage]:
    """Images with one to ``boxes`` boxes of random classes each; four images are of one board."""
    rng = random.Random(f"truth {seed}")
    labelled = []
    for number in range(images):
        annotations = []
        for cell in rng.sample(range(16), rng.randint(1, boxes)):
            side = rng.uniform(20, 60)
            x, y = 160 * (cell % 4) + rng.uniform(20, 60), 160 * (cell // 4) + rng.uniform(20, 60)
            annotations.append(Annotation(Box(x, y, x + side, y + side), rng.choice(classes)))
        key = f"{number:03d}"
        image = ImageRecord(key, f"board{number // 4}/{key}.png", Path(f"{key}.png"), SIDE, SIDE)
        labelled.append(LabelledImage(image, tuple(annotations)))
    return labelled


def make_predictions(
    truth: Sequence[LabelledImage],
    seed: int,
    *,
    recall: float | Mapping[str, float] = 0.8,
    false_positives: float = 1.0,
    jitter: float = 0.08,
    confidence: float = 0.0,
    classes: Sequence[str] = CLASSES,
) -> dict[str, Prediction]:
    """Predictions of a model.

    Args:
        recall: share of the boxes that are detected, for all classes or by class.
        false_positives: mean number of false detections of an image.
        jitter: standard deviation of the corners, in sides of the box.
        confidence: added to all scores, which makes them too high.
    """
    rng = random.Random(f"predictions {seed}")
    predictions = {}
    for labelled in truth:
        found = []
        for a in labelled.annotations:
            if rng.random() < (recall if isinstance(recall, float) else recall[a.label]):
                side = a.box.width
                dx, dy, scale = (rng.gauss(0, jitter) * side for _ in range(3))
                x1, y1 = a.box.x1 + dx, a.box.y1 + dy
                box = Box(x1, y1, x1 + max(side + scale, 5), y1 + max(side + scale, 5))
                found.append(_detection(box, a.label, rng.uniform(0.5, 0.95) + confidence))
        for _ in range(int(false_positives) + (rng.random() < false_positives % 1)):
            x, y, side = rng.uniform(0, 560), rng.uniform(0, 560), rng.uniform(20, 60)
            score = rng.uniform(0.05, 0.7) + confidence
            found.append(_detection(Box(x, y, x + side, y + side), rng.choice(classes), score))
        found.sort(key=lambda d: -d.score)
        key = labelled.image.key
        predictions[key] = Prediction(key, tuple(found), Routing((), (), 0.0), 0.0, "m+b")
    return predictions


def _detection(box: Box, label: str, score: float) -> Detection:
    score = min(score, 0.999)
    return Detection(box, label, score, {label: score}, 0.0)
