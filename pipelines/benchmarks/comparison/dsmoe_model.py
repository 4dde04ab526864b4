"""DS-MoE as a model of a comparison."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from pathlib import Path
from shutil import rmtree
from typing import Any

import dsmoe_core
from dsmoe_core.checkpoint import WEIGHTS
from dsmoe_core.config import ModelConfig, TrainingConfig
from dsmoe_core.data.letterbox_cache import CacheConfig
from dsmoe_core.digest import sha256_of
from dsmoe_core.predict import Detector
from dsmoe_core.schema import ImageRecord, LabelledSet, Prediction, Vocabulary
from dsmoe_core.text_encoders.protocol import TextEncoder
from dsmoe_core.tiling import training_views
from dsmoe_core.train import fit
from dsmoe_core.training.step_sampler import batches_per_round, steps_of_each_set
from dsmoe_core.training.teacher import teacher_hash
from pipelines.benchmarks.comparison.digests import package_digest
from pipelines.benchmarks.comparison.protocol import MIN_SCORE, BenchmarkDataset, Budget, TrainingResult
from pipelines.benchmarks.peak_memory import peak_memory_mb, reset_peak_memory
from pipelines.progress import ProgressReporter

CACHE = "cache"
"""Folder of a run with decoded images and the maps of a frozen encoder; removed when it is trained."""


class DsmoeModel:
    """DS-MoE with one configuration.

    Args:
        name: in result rows and folder names.
        vocabulary: read in place of the data set's vocabulary, in training and in evaluation.
        encoder_from: file with the initial weights of the image encoder; None: random weights.
        start_from: folder of a model to fine-tune; None: start with ``encoder_from``.
        teacher: folder of a model to learn from as well as from the labels; None: from the labels only.
    """

    def __init__(
        self,
        name: str,
        config: ModelConfig,
        text_encoder: TextEncoder,
        *,
        training: TrainingConfig | None = None,
        vocabulary: Vocabulary | None = None,
        encoder_from: Path | None = None,
        start_from: Path | None = None,
        teacher: Path | None = None,
    ) -> None:
        self.name = name
        self.config = config.model_copy(update={"text_width": text_encoder.width})
        self._text_encoder = text_encoder
        self.training = training or TrainingConfig()
        self._vocabulary = vocabulary
        self._encoder_from = encoder_from
        self._start_from = start_from
        self._teacher = teacher
        for logger in ("lightning.fabric", "lightning.pytorch"):  # they log the precision of every training
            logging.getLogger(logger).setLevel(logging.WARNING)

    @property
    def image_px(self) -> int:
        """Side of the network's input in pixels."""
        return self.config.image_px

    def text_settings(self, dataset: BenchmarkDataset) -> dict[str, Any]:
        """Settings of the training on class texts, as keys of a result row."""
        return {
            "class_subsets": self.training.class_subsets,
            "with": [extra.name for extra in dataset.extra_sets],
        }

    def identity(self, dataset: BenchmarkDataset) -> dict[str, Any]:
        """All settings, the vocabulary, the initial weights and the code of ``dsmoe_core``."""
        return {
            "config": self.config.model_dump(mode="json"),
            "training": self.training.model_dump(mode="json", exclude={"images_seen", "seed"}),
            "vocabulary": self._vocabulary_of(dataset).to_dict(),
            "text_encoder": self._text_encoder.name,
            "encoder_from": self._encoder_from and sha256_of(self._encoder_from),
            "start_from": self._start_from and sha256_of(self._start_from / WEIGHTS),
            "teacher": self._teacher and teacher_hash(self._teacher),
            "code": package_digest(Path(dsmoe_core.__file__)),
        }

    def train(
        self, dataset: BenchmarkDataset, budget: Budget, seed: int, folder: Path, progress: ProgressReporter
    ) -> TrainingResult:
        """Train and predict; after a kill the training resumes from its last checkpoint.

        Raises:
            ModelError: the initial weights do not fit the configuration.
        """
        training = self.training.model_copy(update={"seed": seed, **self._length(dataset, budget)})
        progress.status(f"{self.name}: training")
        measured = reset_peak_memory()
        summary = fit(
            images=dataset.train,
            vocabulary=self._vocabulary_of(dataset),
            text_encoder=self._text_encoder,
            model=self.config,
            training=training,
            out=folder / "model",
            encoder_from=self._encoder_from,
            start_from=self._start_from,
            teacher=self._teacher,
            extra_sets=_extra_sets(dataset),
            cache=CacheConfig(folder / CACHE),
            progress=lambda step, steps, _: progress.advance(step, steps),
        )
        peak_mb = peak_memory_mb() if measured else None
        rmtree(folder / CACHE, ignore_errors=True)
        progress.status(f"{self.name}: predicting")
        predictions = self.predict_trained(dataset, folder, progress)
        notes = {"losses": summary.losses, "steps": summary.steps, "length": summary.length}
        epochs = summary.steps * training.batch / self._images_per_epoch(dataset)
        return TrainingResult(predictions, epochs, summary.seconds, notes, peak_mb)

    def predict_trained(
        self, dataset: BenchmarkDataset, folder: Path, progress: ProgressReporter
    ) -> list[Prediction]:
        """Predict ``dataset.val`` with its vocabulary and the network that ``train`` left in the folder.

        Raises:
            ModelError: the folder has no complete model.
        """
        images = [labelled.image for labelled in dataset.val]
        return self.predict(folder / "model", self._vocabulary_of(dataset), images, progress)

    def predict(
        self, model: Path, vocabulary: Vocabulary, images: Iterable[ImageRecord], progress: ProgressReporter
    ) -> list[Prediction]:
        """Predictions of a trained network with this vocabulary, in the order of the images.

        Args:
            model: folder of the weights.

        Raises:
            ModelError: the folder has no complete model.
        """
        detector = Detector.load(model, self._text_encoder)
        detector.set_vocabulary(vocabulary)
        images = list(images)
        predictions: list[Prediction] = []
        for prediction in detector.predict(images, min_score=MIN_SCORE):
            predictions.append(prediction)
            progress.advance(len(predictions), len(images))
        return predictions

    def _vocabulary_of(self, dataset: BenchmarkDataset) -> Vocabulary:
        return self._vocabulary or dataset.vocabulary

    def _length(self, dataset: BenchmarkDataset, budget: Budget) -> dict[str, Any]:
        """Settings of the length of a training."""
        if budget.minutes is not None:
            return {"minutes": budget.minutes}
        if budget.images is not None:
            return {"images_seen": budget.images}
        return {"images_seen": (budget.epochs or 1) * self._images_per_epoch(dataset)}

    def images_of_each_set(self, dataset: BenchmarkDataset, images_seen: int, seed: int) -> list[int]:
        """Images that a training shows of the data set and of each of its extra sets."""
        training = self.training.model_copy(update={"images_seen": images_seen, "seed": seed})
        batches = batches_per_round(self._set_sizes(dataset), training)
        steps = math.ceil(images_seen / training.batch)
        return [count * training.batch for count in steps_of_each_set(steps, batches, seed)]

    def _images_per_epoch(self, dataset: BenchmarkDataset) -> int:
        """Training images of all sets."""
        return sum(self._set_sizes(dataset))

    def _set_sizes(self, dataset: BenchmarkDataset) -> list[int]:
        """Training images of each set; tiles count as images."""
        return [len(training_views(s.train, self.config.tiles)) for s in (dataset, *dataset.extra_sets)]


def _extra_sets(dataset: BenchmarkDataset) -> list[LabelledSet]:
    return [LabelledSet(extra.train, extra.vocabulary) for extra in dataset.extra_sets]
