"""Types of a comparison: training budget, data set, model interface and result of a training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dsmoe_core.schema import LabelledImage, Prediction, Vocabulary
from dsmoe_core.suppression import MAX_DETECTIONS
from pipelines.detectors.backend import EVALUATION_MIN_SCORE
from pipelines.progress import ProgressReporter

MIN_SCORE = EVALUATION_MIN_SCORE
"""Lowest score of a detection that is evaluated; the same for all models."""
MAX_PER_IMAGE = MAX_DETECTIONS
"""Detections per image that are evaluated; the same for all models. COCO's limit per class is the same."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Length of a training in one unit.

    Attributes:
        minutes: of wall-clock time.
        epochs: passes over the training images.
        images: images shown to the network.
    """

    minutes: float | None = None
    epochs: int | None = None
    images: int | None = None

    @property
    def plain(self) -> dict[str, Any]:
        """The given unit and its amount, for result files."""
        amounts = {"minutes": self.minutes, "epochs": self.epochs, "images": self.images}
        return {unit: amount for unit, amount in amounts.items() if amount is not None}


@dataclass(frozen=True, slots=True)
class BenchmarkDataset:
    """Images to train and to evaluate on.

    Attributes:
        name: of the data set's folder.
        vocabulary: its classes in their order, with the built-in descriptions.
        train_share: share of the original training images that ``train`` holds.
        extra_sets: other data sets whose training images are trained on as well, with their own vocabularies.
    """

    name: str
    vocabulary: Vocabulary
    train: Sequence[LabelledImage]
    val: Sequence[LabelledImage]
    train_share: float = 1.0
    extra_sets: tuple[BenchmarkDataset, ...] = ()


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """Predictions and effort of a training.

    Attributes:
        predictions: on the images of ``val``, in their order.
        epochs: passes over the training images, or over the tiles of large ones.
        seconds: of the training alone.
        notes: further plain values to store with the metrics.
        peak_mb: largest memory of the process in the training, in 1e6 bytes, without that of a GPU;
            None where it is not measured.
    """

    predictions: Sequence[Prediction]
    epochs: float
    seconds: float
    notes: dict[str, Any]
    peak_mb: float | None = None


class BenchmarkModel(Protocol):
    """A detector that a comparison can train and evaluate."""

    @property
    def name(self) -> str:
        """Name in result rows and folder names."""
        ...

    @property
    def image_px(self) -> int:
        """Side of the network's input in pixels."""
        ...

    def identity(self, dataset: BenchmarkDataset) -> dict[str, Any]:
        """Plain values, besides data, budget and seed, that determine the training: settings and code."""
        ...

    def train(
        self, dataset: BenchmarkDataset, budget: Budget, seed: int, folder: Path, progress: ProgressReporter
    ) -> TrainingResult:
        """Train on ``dataset.train`` and predict ``dataset.val``.

        Called again with the same folder after a kill, it resumes or starts over.

        Args:
            folder: of this training alone, for checkpoints, logs and the trained weights.
        """
        ...

    def predict_trained(
        self, dataset: BenchmarkDataset, folder: Path, progress: ProgressReporter
    ) -> Sequence[Prediction]:
        """Predict ``dataset.val`` with the model that ``train`` left in the folder.

        Raises:
            ModelError: there is no trained model in the folder.
        """
        ...
