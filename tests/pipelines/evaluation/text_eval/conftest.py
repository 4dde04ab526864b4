"""A detector that does nothing but read words, and images on which it shows what they say."""

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
"""What the detector knows of each class; it finds one where the description says so."""


class RecordingProgress(SilentProgress):
    """Remembers the status lines."""

    def __init__(self) -> None:
        self.statuses: list[str] = []

    def status(self, text: str) -> None:
        self.statuses.append(text)


@dataclass
class WordReader:
    """Sees every true box, a little shifted, as the classes whose description has the words for it.

    Attributes:
        deaf: it goes by names alone, as a model that learned words as codes does.
        asked: vocabularies that it was asked in.
    """

    truth: Sequence[LabelledImage]
    deaf: bool = False
    asked: list[Vocabulary] = field(default_factory=list)

    def fit(self, **_: Any) -> dict[str, Any]:
        raise AssertionError("a judge does not train")

    def predict(
        self, model: Path, vocabulary: Vocabulary, images: Iterable[ImageRecord]
    ) -> Iterator[Prediction]:
        known = {one.image.key: one.annotations for one in self.truth}
        for image in images:
            here = known.get(image.key, ())
            found = [self._detector(a.box, a.label, vocabulary) for a in here]
            found.sort(key=lambda f: -f.score)
            expert = len(here) % 3
            yield Prediction(image.key, tuple(found), Routing((expert, 3), (0.75, 0.25), 0.0), 0.0, "")

    def load(self, model: Path, vocabulary: Vocabulary) -> PredictFunction:
        self.asked.append(vocabulary)
        return lambda images: self.predict(model, vocabulary, images)

    def _detection(self, box: Box, label: str, vocabulary: Vocabulary) -> Detection:
        noise = int(hashlib.sha256(repr(box.corners).encode()).hexdigest()[:4], 16) / 0xFFFF
        said = {c.name: c.name if self.deaf else c.description for c in vocabulary.classes}
        meant = label if self.deaf else SHAPES[label]
        likely = {name: 0.5 + noise / 2 if meant in text else noise / 4 for name, text in said.items()}
        best = max(likely, key=lambda name: likely[name])
        shift = box.width * noise / 4
        moved = Box(box.x1 + shift, box.y1, box.x2 + shift, box.y2)
        return Detection(moved, best, likely[best], likely, 0.1)


def images(count: int = 24) -> list[LabelledImage]:
    """Each shows two classes in turn, in boxes of changing sizes."""
    names, truth = list(SHAPES), []
    for i in range(count):
        side = 20 + 3 * (i % 7)
        boxes = [
            (Box(10.0 + 90 * k, 10 + i, 10.0 + 90 * k + side, 10 + i + side), names[(i + k) % 3])
            for k in range(2)
        ]
        truth.append(labelled(f"p{i}", *boxes[: 1 + i % 2]))
    return truth


def book(**texts: str) -> ClassBook:
    """A class book of SHAPES, with other texts where given."""
    return ClassBook(
        classes=tuple(
            ClassEntry(name=name, description=f"a {text} in the copper")
            for name, text in {**SHAPES, **texts}.items()
        )
    )


@pytest.fixture
def progress() -> RecordingProgress:
    return RecordingProgress()


@pytest.fixture
def truth() -> list[LabelledImage]:
    return images()


@pytest.fixture
def reader(truth: list[LabelledImage]) -> WordReader:
    return WordReader(truth)


@pytest.fixture
def model(reader: WordReader) -> EvaluatedModel:
    return EvaluatedModel("r1", Path("nowhere"), book().vocabulary(), {}, reader)
