"""A lesson of coloured blocks, and contestants that learn it in no time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dsmoe_core.schema import Detection, LabelledImage, Prediction, Routing
from pipelines.benchmarks.comparison import dataset as lessons
from pipelines.benchmarks.comparison.protocol import Budget, Learned, Lesson
from pipelines.benchmarks.comparison.run_store import Bouts
from pipelines.progress import ProgressReporter, SilentProgress
from tests.pipelines.blocks import write_blocks


class RecordingProgress(SilentProgress):
    """Remembers lines and counts."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.done: list[tuple[int, int]] = []

    def advance(self, done: int, total: int, note: str = "") -> None:
        self.done.append((done, total))

    def line(self, text: str) -> None:
        self.lines.append(text)


@dataclass
class Guesser:
    """Finds so large a share of the true boxes, a little more with each seed."""

    name: str
    share: float
    image_px: int = 96
    version: int = 1
    learned: list[tuple[str, int, int]] = field(default_factory=list)

    def identity(self, lesson: Lesson) -> dict[str, Any]:
        return {"name": self.name, "version": self.version}

    def learn(
        self, lesson: Lesson, budget: Budget, seed: int, folder: Path, progress: ProgressReporter
    ) -> Learned:
        self.learned.append((lesson.name, seed, len(lesson.train)))
        return Learned([self.predict(p, seed) for p in lesson.val], 2.0, 90.0, {})

    def predict(self, labelled: LabelledImage, seed: int) -> Prediction:
        kept = int((self.share + seed / 10) * len(labelled.annotations) + 0.5)
        found = [Detection(a.box, a.label, 0.9, {a.label: 0.9}, 0.0) for a in labelled.annotations[:kept]]
        return Prediction(labelled.image.key, tuple(found), Routing((), (), 0.0), 0.0, "v")


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_blocks(tmp_path_factory.mktemp("small") / "squares", train=10, val=6, px=96)


@pytest.fixture
def lesson(small: Path) -> Iterator[Lesson]:
    with lessons.read(small, RecordingProgress()) as read:
        yield read


@pytest.fixture
def progress() -> RecordingProgress:
    return RecordingProgress()


@pytest.fixture
def bouts(tmp_path: Path, progress: RecordingProgress) -> Bouts:
    return Bouts(tmp_path / "work", progress, resamples=100)
