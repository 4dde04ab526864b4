"""A small data set of coloured blocks, and a model that needs no training."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dsmoe_core.schema import Detection, LabelledImage, Prediction, Routing
from pipelines.benchmarks.comparison import dsmoe_model
from pipelines.benchmarks.comparison.dataset import load_dataset
from pipelines.benchmarks.comparison.protocol import BenchmarkDataset, Budget, TrainingResult
from pipelines.benchmarks.comparison.run_store import RunStore
from pipelines.progress import ProgressReporter, SilentProgress
from tests.pipelines.blocks import write_blocks


class RecordingProgress(SilentProgress):
    """Records lines and counts."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.done: list[tuple[int, int]] = []

    def advance(self, done: int, total: int, note: str = "") -> None:
        self.done.append((done, total))

    def line(self, text: str) -> None:
        self.lines.append(text)


@dataclass
class FakeModel:
    """Returns a share of the true boxes, which grows by 0.1 with each seed.

    ``of_epochs`` replaces the share for trainings of that length.
    """

    name: str
    share: float
    image_px: int = 96
    version: int = 1
    of_epochs: dict[int, float] = field(default_factory=dict)
    trainings: list[tuple[str, int, int]] = field(default_factory=list)

    def identity(self, dataset: BenchmarkDataset) -> dict[str, Any]:
        return {"name": self.name, "version": self.version}

    def train(
        self, dataset: BenchmarkDataset, budget: Budget, seed: int, folder: Path, progress: ProgressReporter
    ) -> TrainingResult:
        self.trainings.append((dataset.name, seed, len(dataset.train)))
        trained = {"seed": seed, "share": self.of_epochs.get(budget.epochs or 0, self.share)}
        (folder / "trained.json").write_text(json.dumps(trained))
        return TrainingResult(self.predict_trained(dataset, folder, progress), 2.0, 90.0, {})

    def predict_trained(
        self, dataset: BenchmarkDataset, folder: Path, progress: ProgressReporter
    ) -> list[Prediction]:
        trained = json.loads((folder / "trained.json").read_text())
        return [self.predict(image, trained["seed"], trained["share"]) for image in dataset.val]

    def predict(self, labelled: LabelledImage, seed: int, share: float | None = None) -> Prediction:
        share = self.share if share is None else share
        count = int((share + seed / 10) * len(labelled.annotations) + 0.5)
        detections = [
            Detection(a.box, a.label, 0.9, {a.label: 0.9}, 0.0) for a in labelled.annotations[:count]
        ]
        return Prediction(labelled.image.key, tuple(detections), Routing((), (), 0.0), 0.0, "v")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the data set."""
    return write_blocks(tmp_path_factory.mktemp("small") / "squares", train=10, val=6, px=96)


@pytest.fixture
def dataset(data: Path) -> Iterator[BenchmarkDataset]:
    with load_dataset(data, RecordingProgress()) as loaded:
        yield loaded


@pytest.fixture
def progress() -> RecordingProgress:
    return RecordingProgress()


@pytest.fixture
def store(tmp_path: Path, progress: RecordingProgress) -> RunStore:
    return RunStore(tmp_path / "work", progress, resamples=100)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Arguments of the trainings of DS-MoE that are done; stored ones are not among them."""
    done: list[dict[str, Any]] = []
    fit = dsmoe_model.fit
    monkeypatch.setattr(dsmoe_model, "fit", lambda **given: done.append(given) or fit(**given))
    return done
