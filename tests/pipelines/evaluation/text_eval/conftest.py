"""A detector that does nothing but read words, and pictures on which it shows what they say."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from scenes import labelled

from dsmoe_core.schema import Box, Finding, LabelledPicture, Picture, PictureFindings, Routing, Vocabulary
from pipelines.detectors.backend import Look
from pipelines.evaluation.report.evaluated_model import Contender
from prompts.class_book import ClassBook, ClassEntry

SHAPES = {"spur": "pointed outgrowth", "short": "bridge between tracks", "hole": "round gap"}
"""What the detector knows of each class; it finds one where the description says so."""


class Quiet:
    """Told much, says nothing."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def advance(self, done: int, total: int) -> None:
        pass

    def line(self, text: str) -> None:
        pass


@dataclass
class WordReader:
    """Sees every true box, a little shifted, as the classes whose description has the words for it.

    Attributes:
        deaf: it goes by names alone, as a model that learned words as codes does.
        asked: vocabularies that it was asked in.
    """

    truth: Sequence[LabelledPicture]
    deaf: bool = False
    asked: list[Vocabulary] = field(default_factory=list)

    def fit(self, **_: Any) -> dict[str, Any]:
        raise AssertionError("a judge does not train")

    def findings(
        self, model: Path, vocabulary: Vocabulary, pictures: Iterable[Picture]
    ) -> Iterator[PictureFindings]:
        known = {one.picture.key: one.annotations for one in self.truth}
        for picture in pictures:
            here = known.get(picture.key, ())
            found = [self._finding(a.box, a.label, vocabulary) for a in here]
            found.sort(key=lambda f: -f.score)
            expert = len(here) % 3
            yield PictureFindings(picture.key, tuple(found), Routing((expert, 3), (0.75, 0.25), 0.0), 0.0, "")

    def opened(self, model: Path, vocabulary: Vocabulary) -> Look:
        self.asked.append(vocabulary)
        return lambda pictures: self.findings(model, vocabulary, pictures)

    def _finding(self, box: Box, label: str, vocabulary: Vocabulary) -> Finding:
        noise = int(hashlib.sha256(repr(box.corners).encode()).hexdigest()[:4], 16) / 0xFFFF
        said = {c.name: c.name if self.deaf else c.description for c in vocabulary.classes}
        meant = label if self.deaf else SHAPES[label]
        likely = {name: 0.5 + noise / 2 if meant in text else noise / 4 for name, text in said.items()}
        best = max(likely, key=lambda name: likely[name])
        shift = box.width * noise / 4
        moved = Box(box.x1 + shift, box.y1, box.x2 + shift, box.y2)
        return Finding(moved, best, likely[best], likely, 0.1)


def pictures(count: int = 24) -> list[LabelledPicture]:
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
def told() -> Quiet:
    return Quiet()


@pytest.fixture
def truth() -> list[LabelledPicture]:
    return pictures()


@pytest.fixture
def reader(truth: list[LabelledPicture]) -> WordReader:
    return WordReader(truth)


@pytest.fixture
def model(reader: WordReader) -> Contender:
    return Contender("r1", Path("nowhere"), book().vocabulary(), {}, reader)
