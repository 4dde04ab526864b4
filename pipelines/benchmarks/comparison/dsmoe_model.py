"""DS-MoE as a model of a comparison."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import Any

import dsmoe_core
from dsmoe_core.atomic import atomic_write
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
from pipelines.progress import ProgressReporter

WARM_UP_STEPS = 3
"""Steps that the speed test ignores: the first ones allocate and compile."""
SPEED_TEST_S, MIN_SPEED_TEST_STEPS = 30.0, 4
"""The speed test ends when both are reached."""
UNLIMITED_IMAGES = 1_000_000_000
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
        speed_test_s: seconds of the speed test that converts minutes into a number of images.
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
        speed_test_s: float = SPEED_TEST_S,
    ) -> None:
        self.name = name
        self.config = config.model_copy(update={"text_width": text_encoder.width})
        self._text_encoder = text_encoder
        self.training = training or TrainingConfig()
        self._vocabulary = vocabulary
        self._encoder_from = encoder_from
        self._start_from = start_from
        self._teacher = teacher
        self._speed_test_s = speed_test_s
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
        training = self.training.model_copy(update={"seed": seed})
        if budget.minutes is not None and training.schedule == "wsd":
            length: dict[str, Any] = {"minutes": budget.minutes}  # it does not need to know the images
        else:
            length = {
                "images_seen": self._images_seen(dataset, budget, training, folder / "length.json", progress)
            }
        training = training.model_copy(update=length)
        progress.status(f"{self.name}: training")
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
        rmtree(folder / CACHE, ignore_errors=True)
        progress.status(f"{self.name}: predicting")
        predictions = self.predict_trained(dataset, folder, progress)
        notes = {"losses": summary.losses, "steps": summary.steps, "length": summary.length}
        epochs = summary.steps * training.batch / self._images_per_epoch(dataset)
        return TrainingResult(predictions, epochs, summary.seconds, notes)

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

    def images_per_second(self, dataset: BenchmarkDataset, training: TrainingConfig) -> float:
        """Training speed, from the first steps of a training that is then discarded."""
        step_ends: list[float] = []

        def record_step(*_: Any) -> None:
            step_ends.append(time.monotonic())
            timed = step_ends[WARM_UP_STEPS:]
            if len(timed) > MIN_SPEED_TEST_STEPS and timed[-1] - timed[0] >= self._speed_test_s:
                raise _SpeedMeasured

        with TemporaryDirectory(prefix="dsmoe-") as scratch, suppress(_SpeedMeasured):
            fit(
                images=dataset.train,
                vocabulary=self._vocabulary_of(dataset),
                text_encoder=self._text_encoder,
                model=self.config,
                training=training.model_copy(
                    update={"images_seen": UNLIMITED_IMAGES, "checkpoint_every_s": 3600.0}
                ),
                out=Path(scratch),
                encoder_from=self._encoder_from,
                start_from=self._start_from,
                teacher=self._teacher,
                extra_sets=_extra_sets(dataset),
                progress=record_step,
            )
        timed = step_ends[WARM_UP_STEPS:]
        return training.batch * (len(timed) - 1) / (timed[-1] - timed[0])

    def _vocabulary_of(self, dataset: BenchmarkDataset) -> Vocabulary:
        return self._vocabulary or dataset.vocabulary

    def _images_seen(
        self,
        dataset: BenchmarkDataset,
        budget: Budget,
        training: TrainingConfig,
        length_file: Path,
        progress: ProgressReporter,
    ) -> int:
        """Number of images to train on.

        For a budget in minutes it is measured once and stored, because the learning-rate schedule of a
        resumed training depends on it.
        """
        if budget.images is not None:
            return budget.images
        if budget.epochs is not None:
            return budget.epochs * self._images_per_epoch(dataset)
        if length_file.is_file():
            return int(json.loads(length_file.read_text(encoding="utf-8"))["images_seen"])
        progress.status(f"{self.name}: measuring the training speed")
        speed = self.images_per_second(dataset, training)
        images_seen = max(training.batch, int(speed * 60 * (budget.minutes or 0.0)))
        length = {"images_per_s": round(speed, 2), "images_seen": images_seen}
        atomic_write(length_file, json.dumps(length) + "\n")
        return images_seen

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


class _SpeedMeasured(Exception):  # noqa: N818 - not an error
    """Stops the training of the speed test."""
