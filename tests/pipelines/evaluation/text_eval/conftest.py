"""A detector whose detections depend only on the class descriptions, and images to run it on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from scenes import labelled

from dsmoe_core.schema import Box, Detection, ImageRecord, LabelledImage, Prediction, Routing, Vocabulary
from pipelines.detectors.backend import PredictFunction
from pipelines.evaluation.report.evaluated_model import EvaluatedModel
from pipelines.progress import SilentProgress
from prompts.class_book import ClassBook
from prompts.class_entry import ClassEntry

SHAPES = {"spur": "pointed outgrowth", "short": "bridge between tracks", "hole": "round gap"}
"""The phrase by which :class:`TextDetector` recognises each class in a description."""


class RecordingProgress(SilentProgress):
    """Records the status lines."""

    def __init__(self) -> None:
        self.statuses: list[str] = []

    def status(self, text: str) -> None:
        self.statuses.append(text)


@dataclass
class TextDetector:
    """Detects every ground-truth box, slightly shifted, as the class whose description has its phrase.

    Attributes:
        ignores_text: detect by class name instead of description.
        vocabularies: all vocabularies that it was loaded with.
    """

    truth: Sequence[LabelledImage]
    ignores_text: bool = False
    vocabularies: list[Vocabulary] = field(default_factory=list)

    def fit(self, **_: Any) -> dict[str, Any]:
        raise AssertionError("an evaluation must not train")

    def predict(
        self, model: Path, vocabulary: Vocabulary, images: Iterable[ImageRecord]
    ) -> Iterator[Prediction]:
        truth = {image.image.key: image.annotations for image in self.truth}
        for image in images:
            annotations = truth.get(image.key, ())
            detections = [self._detection(a.box, a.label, vocabulary) for a in annotations]
            detections.sort(key=lambda f: -f.score)
            expert = len(annotations) % 3
            yield Prediction(image.key, tuple(detections), Routing((expert, 3), (0.75, 0.25), 0.0), 0.0, "")

    def load(self, model: Path, vocabulary: Vocabulary) -> PredictFunction:
        self.vocabularies.append(vocabulary)
        return lambda images: self.predict(model, vocabulary, images)

    def _detection(self, box: Box, label: str, vocabulary: Vocabulary) -> Detection:
        noise = int(hashlib.sha256(repr(box.corners).encode()).hexdigest()[:4], 16) / 0xFFFF
        texts = {c.name: c.name if self.ignores_text else c.description for c in vocabulary.classes}
        phrase = label if self.ignores_text else SHAPES[label]
        probabilities = {n: 0.5 + noise / 2 if phrase in text else noise / 4 for n, text in texts.items()}
        best = max(probabilities, key=lambda name: probabilities[name])
        shift = box.width * noise / 4
        moved = Box(box.x1 + shift, box.y1, box.x2 + shift, box.y2)
        return Detection(moved, best, probabilities[best], probabilities, 0.1)


def images(count: int = 24) -> list[LabelledImage]:
    """Images with one or two boxes of changing classes and sizes."""
    names, truth = list(SHAPES), []
    for i in range(count):
        side = 20 + 3 * (i % 7)
        boxes = [
            (Box(10.0 + 90 * k, 10 + i, 10.0 + 90 * k + side, 10 + i + side), names[(i + k) % 3])
            for k in range(2)
        ]
        truth.append(labelled(f"p{i}", *boxes[: 1 + i % 2]))
    return truth


def book(**phrases: str) -> ClassBook:
    """A class book of the classes in SHAPES, with other phrases where given."""
    return ClassBook(
        classes=tuple(
            ClassEntry(name=name, description=f"a {phrase} in the copper")
            for name, phrase in {**SHAPES, **phrases}.items()
        )
    )


@pytest.fixture
def progress() -> RecordingProgress:
    return RecordingProgress()


@pytest.fixture
def truth() -> list[LabelledImage]:
    return images()


@pytest.fixture
def detector(truth: list[LabelledImage]) -> TextDetector:
    return TextDetector(truth)


@pytest.fixture
def model(detector: TextDetector) -> EvaluatedModel:
    return EvaluatedModel("r1", Path("nowhere"), book().vocabulary(), {}, detector)
