"""DS-MoE as a contestant."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dsmoe_core
from dsmoe_core.atomic import atomic_write
from dsmoe_core.config import ModelConfig, TrainingConfig
from dsmoe_core.digest import sha256_of
from dsmoe_core.predict import Detector
from dsmoe_core.schema import ImageRecord, LabelledSet, Prediction, Vocabulary
from dsmoe_core.text_encoders.protocol import TextEncoder
from dsmoe_core.tiling import training_views
from dsmoe_core.train import fit
from pipelines.benchmarks.comparison.digests import of_code
from pipelines.benchmarks.comparison.protocol import MIN_SCORE, Budget, Learned, Lesson
from pipelines.progress import ProgressReporter

WARM_UP = 3
"""Steps that are slower than the others, for what is made at the first use."""
SPEED_S, SPEED_STEPS = 30.0, 4
"""How long, and for how many steps, the speed is measured."""


class DsmoeContestant:
    """DS-MoE of one shape.

    Args:
        name: for rows and folders.
        words: what it reads in place of the lesson's vocabulary, in training and in judging.
        encoder_from: file of the image encoder's first weights; none: from scratch.
    """

    def __init__(
        self,
        name: str,
        model: ModelConfig,
        text_encoder: TextEncoder,
        *,
        training: TrainingConfig | None = None,
        words: Vocabulary | None = None,
        encoder_from: Path | None = None,
    ) -> None:
        self.name = name
        self.model = model.model_copy(update={"text_width": text_encoder.width})
        self._texts = text_encoder
        self._training = training or TrainingConfig()
        self._words = words
        self._encoder_from = encoder_from
        for chatty in ("lightning.fabric", "lightning.pytorch"):  # they tell the precision every time
            logging.getLogger(chatty).setLevel(logging.WARNING)

    def how(self, lesson: Lesson) -> dict[str, Any]:
        """How it learns words, for the rows of a result."""
        return {"class_subsets": self._training.class_subsets, "with": [one.name for one in lesson.along]}

    @property
    def image_px(self) -> int:
        """Side of the image that it is shown."""
        return self.model.image_px

    def identity(self, lesson: Lesson) -> dict[str, Any]:
        """All settings, the words, the first weights and the code of ``dsmoe_core``."""
        begun = self._encoder_from and sha256_of(self._encoder_from)
        return {
            "model": self.model.model_dump(mode="json"),
            "training": self._training.model_dump(mode="json", exclude={"pictures_seen", "seed"}),
            "words": self._vocabulary(lesson).to_dict(),
            "text_encoder": self._texts.name,
            "encoder_from": begun,
            "code": of_code(Path(dsmoe_core.__file__)),
        }

    def learn(
        self, lesson: Lesson, budget: Budget, seed: int, folder: Path, progress: ProgressReporter
    ) -> Learned:
        """Train and look; a killed training goes on from its last checkpoint, of the same length.

        Raises:
            ModelError: the first weights do not fit.
        """
        training = self._training.model_copy(update={"seed": seed})
        length = self._length(lesson, budget, training, folder / "length.json", progress)
        training = training.model_copy(update={"pictures_seen": length})
        progress.status(f"{self.name}: training")
        vocabulary = self._vocabulary(lesson)
        summary = fit(
            images=lesson.train,
            vocabulary=vocabulary,
            text_encoder=self._texts,
            model=self.model,
            training=training,
            out=folder / "model",
            encoder_from=self._encoder_from,
            extra_sets=_along(lesson),
            progress=lambda step, steps, _: progress.advance(step, steps),
        )
        progress.status(f"{self.name}: looking at images")
        detections = self.look(folder / "model", vocabulary, [p.image for p in lesson.val], progress)
        notes = {"losses": summary.losses, "steps": summary.steps}
        epochs = summary.steps * training.batch / self._shown_in_a_pass(lesson)
        return Learned(detections, epochs, summary.seconds, notes)

    def look(
        self, model: Path, vocabulary: Vocabulary, images: Iterable[ImageRecord], progress: ProgressReporter
    ) -> list[Prediction]:
        """What a trained network finds when it reads these words.

        Raises:
            ModelError: there is no whole model in the folder.
        """
        detector = Detector.load(model, self._texts)
        detector.set_vocabulary(vocabulary)
        images, found = list(images), []
        for one in detector.predict(images, min_score=MIN_SCORE):
            found.append(one)
            progress.advance(len(found), len(images))
        return found

    def _vocabulary(self, lesson: Lesson) -> Vocabulary:
        return self._words or lesson.vocabulary

    def _length(
        self, lesson: Lesson, budget: Budget, training: TrainingConfig, kept: Path, progress: ProgressReporter
    ) -> int:
        """Images to be shown. What minutes allow is measured once and kept, as the schedule hangs on it."""
        if budget.epochs is not None:
            return budget.epochs * self._shown_in_a_pass(lesson)
        if kept.is_file():
            return int(json.loads(kept.read_text(encoding="utf-8"))["pictures_seen"])
        progress.status(f"{self.name}: measuring its speed")
        speed = self._speed(lesson, training)
        length = max(training.batch, int(speed * 60 * (budget.minutes or 0.0)))
        atomic_write(kept, json.dumps({"pictures_per_s": round(speed, 2), "pictures_seen": length}) + "\n")
        return length

    def _shown_in_a_pass(self, lesson: Lesson) -> int:
        """Images of all sets, or the tiles of large ones."""
        return sum(len(training_views(one.train, self.model.tiles)) for one in (lesson, *lesson.along))

    def _speed(self, lesson: Lesson, training: TrainingConfig) -> float:
        """Images a second that a training is shown, from the beginning of one that is thrown away."""
        moments: list[float] = []

        def note(*_: Any) -> None:
            moments.append(time.monotonic())
            timed = moments[WARM_UP:]
            if len(timed) > SPEED_STEPS and timed[-1] - timed[0] >= SPEED_S:
                raise _MeasuredError

        with TemporaryDirectory(prefix="dsmoe-") as scratch, suppress(_MeasuredError):
            fit(
                images=lesson.train,
                vocabulary=self._vocabulary(lesson),
                text_encoder=self._texts,
                model=self.model,
                training=training.model_copy(
                    update={"pictures_seen": 1_000_000_000, "checkpoint_every_s": 3600.0}
                ),
                out=Path(scratch),
                encoder_from=self._encoder_from,
                extra_sets=_along(lesson),
                progress=note,
            )
        timed = moments[WARM_UP:]
        return training.batch * (len(timed) - 1) / (timed[-1] - timed[0])


def _along(lesson: Lesson) -> list[LabelledSet]:
    return [LabelledSet(one.train, one.vocabulary) for one in lesson.along]


class _MeasuredError(Exception):
    """Leads out of a training that has told its speed."""
