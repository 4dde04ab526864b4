"""Colour-matching detector for tests and dry runs.

It learns the mean colour of each class from labelled boxes, finds blocks that stand out from the background,
and gives each the class with the nearest colour. It satisfies the same interface as the network: it writes
safetensors, can be interrupted anywhere, and improves with more labels if the classes differ in colour.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from math import log
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from dsmoe_core.atomic import atomic_write
from dsmoe_core.config import TrainingConfig
from dsmoe_core.errors import ModelError
from dsmoe_core.knockout.part_report import PartReport
from dsmoe_core.schema import Box, Detection, ImageRecord, LabelledImage, Prediction, Routing, Vocabulary
from dsmoe_core.uncertainty import image_uncertainty
from pipelines.detectors.backend import PredictFunction, TrainingProgress

MAX_SIDE = 128  # pixels; larger images are subsampled, so that a dry run takes seconds
CELL = 4  # pixels of the subsampled image; blocks closer together than this are merged
MIN_CONTRAST = 48.0  # RGB distance from the background from which on a pixel belongs to a block
COLOUR_SCALE = 24.0  # RGB distance at which the probability of a class falls to 1/e

Floats = NDArray[np.float64]


class StubDetector:
    """Finds blocks that stand out from the background and classifies them by colour."""

    def fit(
        self,
        *,
        images: Sequence[LabelledImage],
        vocabulary: Vocabulary,
        training: TrainingConfig,
        out: Path,
        start_from: Path | None,
        teacher: Path | None = None,
        progress: TrainingProgress | None = None,
    ) -> dict[str, Any]:
        """See ``DetectorBackend.fit``. Classes without a box get the teacher's colour."""
        sums = np.zeros((len(vocabulary), 3))
        counts = np.zeros(len(vocabulary))
        if start_from is not None:
            _load(start_from)  # a missing parent is an error, as it is for the network
        for step, labelled in enumerate(images, start=1):
            pixels = _pixels(labelled.image)
            for annotation in labelled.annotations:
                index = vocabulary.index(annotation.label)
                sums[index] += _colour(pixels, annotation.box)
                counts[index] += 1
            if progress is not None:
                progress(step, len(images), {"loss": 1.0 / step})
        if teacher is not None:
            _add_missing_classes(teacher, vocabulary, sums, counts)
        colours = sums / np.maximum(counts, 1)[:, None]
        out.mkdir(parents=True, exist_ok=True)
        draft = out / ".model.safetensors.tmp"
        save_file({"colours": colours, "counts": counts}, draft)
        draft.replace(out / "model.safetensors")
        atomic_write(out / "model.json", json.dumps({"classes": vocabulary.names}))
        return {"steps": len(images), "images_seen": training.images_seen}

    def predict(
        self, model: Path, vocabulary: Vocabulary, images: Iterable[ImageRecord]
    ) -> Iterator[Prediction]:
        """See ``DetectorBackend.predict``."""
        weights = _load(model)
        if len(weights["counts"]) != len(vocabulary):
            raise ModelError(
                f"{model} was trained with {len(weights['counts'])} classes; the class book has "
                f"{len(vocabulary)}",
                "Train it again with this class book.",
            )
        for image in images:
            pixels = _pixels(image)
            detections = [_detection(pixels, box, weights, vocabulary) for box in _blocks(pixels)]
            detections.sort(key=lambda d: -d.score)
            routing = Routing((0,), (1.0,), 0.0)
            yield Prediction(image.key, tuple(detections), routing, image_uncertainty(detections), "")

    def load(self, model: Path, vocabulary: Vocabulary) -> PredictFunction:
        """See ``DetectorBackend.load``."""
        _load(model)
        return partial(self.predict, model, vocabulary)

    def measure_parts(
        self, model: Path, vocabulary: Vocabulary, truth: Sequence[LabelledImage]
    ) -> PartReport | None:
        """None: it has no stages."""
        del vocabulary, truth
        _load(model)
        return None


def _load(model: Path) -> dict[str, Floats]:
    try:
        weights: dict[str, Floats] = load_file(model / "model.safetensors")
    except FileNotFoundError as error:
        raise ModelError(f"there is no model in {model}", "Train one first.") from error
    except (OSError, SafetensorError) as error:
        raise ModelError(f"the model in {model} is damaged: {error}", "Train one again.") from error
    return weights


def _add_missing_classes(teacher: Path, vocabulary: Vocabulary, sums: Floats, counts: Floats) -> None:
    """Set the colour and the number of boxes of classes that have none to the teacher's, by name."""
    weights = _load(teacher)
    known = json.loads((teacher / "model.json").read_text("utf-8"))["classes"]
    for index, name in enumerate(vocabulary.names):
        if not counts[index] and name in known:
            row = known.index(name)
            counts[index] = weights["counts"][row]
            sums[index] = weights["colours"][row] * counts[index]


def _pixels(image: ImageRecord) -> Floats:
    """(height, width, 3), 0 to 255."""
    with Image.open(image.path) as opened:
        return np.asarray(opened.convert("RGB"), dtype=np.float64)


def _colour(pixels: Floats, box: Box) -> Floats:
    """Mean RGB of the inner half of a box; annotators draw the edges a few pixels too far out."""
    x1, x2 = int(box.x1 + box.width / 4), int(box.x2 - box.width / 4) + 1
    y1, y2 = int(box.y1 + box.height / 4), int(box.y2 - box.height / 4) + 1
    mean: Floats = pixels[y1:y2, x1:x2].reshape(-1, 3).mean(axis=0)
    return mean


def _blocks(pixels: Floats) -> list[Box]:
    """Tight boxes around foreground regions; regions in adjacent cells of CELL pixels are joined."""
    stride = -(-max(pixels.shape[:2]) // MAX_SIDE)
    coarse = pixels[::stride, ::stride]
    background = np.median(coarse.reshape(-1, 3), axis=0)
    foreground = np.linalg.norm(coarse - background, axis=2) > MIN_CONTRAST
    ys, xs = np.nonzero(foreground)
    cells: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for y, x in zip(ys.tolist(), xs.tolist(), strict=True):
        cells.setdefault((y // CELL, x // CELL), []).append((y, x))
    boxes = []
    while cells:
        front = [next(iter(cells))]
        points = cells.pop(front[0])
        while front:
            row, column = front.pop()
            for neighbour in ((row + dy, column + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)):
                if neighbour in cells:
                    points += cells.pop(neighbour)
                    front.append(neighbour)
        top, left = (min(p[axis] for p in points) for axis in (0, 1))
        bottom, right = (max(p[axis] for p in points) + 1 for axis in (0, 1))
        height, width = pixels.shape[:2]
        box = Box(float(left), float(top), float(right), float(bottom))
        boxes.append(Box(*(stride * v for v in box.corners)).clipped(width, height))
    return boxes


def _detection(pixels: Floats, box: Box, weights: dict[str, Floats], vocabulary: Vocabulary) -> Detection:
    distances = np.linalg.norm(weights["colours"] - _colour(pixels, box), axis=1)
    values = np.where(weights["counts"] > 0, np.exp(-distances / COLOUR_SCALE), 0.0)
    probabilities = {name: float(p) for name, p in zip(vocabulary.names, values, strict=True)}
    label = max(probabilities, key=lambda name: probabilities[name])
    entropy = sum(_binary_entropy(p) for p in probabilities.values()) / len(probabilities)
    return Detection(box, label, probabilities[label], probabilities, entropy, expert=0)


def _binary_entropy(p: float) -> float:
    return 0.0 if p <= 0 or p >= 1 else -p * log(p) - (1 - p) * log(1 - p)
