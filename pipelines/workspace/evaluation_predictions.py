"""Predictions of a model on the test set, as arrays in ``models/ID/evaluation.safetensors``.

A comparison of two models needs the predictions of both on the same images, with detections of low scores.
Boxes, scores and classes are stored, 42 bytes for a detection. A prediction is made when it is accessed, so a
test set of any size needs little memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from dsmoe_core.atomic import atomic_write
from dsmoe_core.errors import ModelError
from dsmoe_core.schema import Box, Detection, Prediction, Routing

FILE = "evaluation.safetensors"
MAX_DETECTIONS = 100
"""Detections of a class and image that are stored, those of the highest scores, as COCO evaluates no more."""


class EvaluationPredictions(Mapping[str, Prediction]):
    """Stored predictions by image key, without routing and without the probabilities of other classes.

    Args:
        boxes: corners, (n, 4); with ``scores`` and ``labels`` (n) in the order of the images.
        ends: for each image, the index after its last detection.
    """

    def __init__(
        self,
        keys: Sequence[str],
        classes: Sequence[str],
        boxes: NDArray[np.float64],
        scores: NDArray[np.float64],
        labels: NDArray[np.integer[Any]],
        ends: NDArray[np.integer[Any]],
    ) -> None:
        self._index = {key: i for i, key in enumerate(keys)}
        self._classes, self._boxes, self._scores, self._labels = classes, boxes, scores, labels
        self._ends = ends

    def __getitem__(self, key: str) -> Prediction:
        i = self._index[key]
        start, end = int(self._ends[i - 1]) if i else 0, int(self._ends[i])
        detections = tuple(self._detection(n) for n in range(start, end))
        return Prediction(key, detections, Routing((), (), 0.0), 0.0, "")

    def _detection(self, n: int) -> Detection:
        label, score = self._classes[self._labels[n]], float(self._scores[n])
        return Detection(Box(*map(float, self._boxes[n])), label, score, {label: score}, 0.0)

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)


def save_predictions(
    folder: Path, predictions: Iterable[Prediction], classes: Sequence[str], evaluated_on: str
) -> None:
    """Write the predictions of the model in this folder; they replace earlier ones.

    Args:
        predictions: each is released before the next one is taken.
        evaluated_on: name of the test set and class book, ``DATASET+BOOK``.

    Raises:
        PrerequisiteError: the disk is full.
    """
    index = {name: i for i, name in enumerate(classes)}
    keys, boxes, scores, labels, ends = [], [], [], [], []
    for prediction in predictions:
        kept = _strongest(prediction.detections)
        keys.append(prediction.key)
        boxes.append(np.array([d.box.corners for d in kept], dtype=np.float64).reshape(-1, 4))
        scores.append(np.array([d.score for d in kept], dtype=np.float64))
        labels.append(np.array([index[d.label] for d in kept], dtype=np.int16))
        ends.append(len(kept))
    arrays = {
        "boxes": np.concatenate([np.zeros((0, 4)), *boxes]),
        "scores": np.concatenate([np.zeros(0), *scores]),
        "labels": np.concatenate([np.zeros(0, dtype=np.int16), *labels]),
        "ends": np.cumsum(np.array(ends, dtype=np.int64)),
    }
    metadata = {"evaluated_on": evaluated_on, "keys": json.dumps(keys), "classes": json.dumps(list(classes))}
    atomic_write(folder / FILE, save(arrays, metadata))


def load_predictions(folder: Path, evaluated_on: str) -> EvaluationPredictions | None:
    """The stored predictions; None if there are none of this test set and class book.

    Raises:
        ModelError: the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata()
            if metadata["evaluated_on"] != evaluated_on:
                return None
            names = ("boxes", "scores", "labels", "ends")
            arrays = [file.get_tensor(name) for name in names]
            return EvaluationPredictions(
                json.loads(metadata["keys"]), json.loads(metadata["classes"]), *arrays
            )
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path} is damaged", "Delete it; it is made again when it is needed.") from error


def _strongest(detections: Sequence[Detection]) -> list[Detection]:
    """At most ``MAX_DETECTIONS`` of each class, of the highest scores, in their order."""
    counts: dict[str, int] = {}
    kept = set()
    for i in sorted(range(len(detections)), key=lambda i: -detections[i].score):
        label = detections[i].label
        counts[label] = counts.get(label, 0) + 1
        if counts[label] <= MAX_DETECTIONS:
            kept.add(i)
    return [d for i, d in enumerate(detections) if i in kept]
