"""What a contestant is: it learns from the same images for the same time and answers with detections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dsmoe_core.predict import MAX_DETECTIONS
from dsmoe_core.schema import LabelledImage, Prediction, Vocabulary
from pipelines.detectors.backend import EVALUATION_MIN_SCORE
from pipelines.progress import ProgressReporter

MIN_SCORE = EVALUATION_MIN_SCORE
"""For everybody."""
MOST = MAX_DETECTIONS
"""Detections an image, for everybody; COCO looks at no more of a class."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How long to train: minutes of wall-clock, or passes over the training images; one of them."""

    minutes: float | None = None
    epochs: int | None = None

    @property
    def plain(self) -> dict[str, Any]:
        """The one that is given, by its name."""
        return {"epochs": self.epochs} if self.minutes is None else {"minutes": self.minutes}


@dataclass(frozen=True, slots=True)
class Lesson:
    """A data set: what is learned from and what is judged on.

    Attributes:
        name: of the data set.
        vocabulary: its classes in their order, with our built-in descriptions.
        labels: share of the training images that ``train`` is.
        along: other sets whose training images are learned along with it, in their own words.
    """

    name: str
    vocabulary: Vocabulary
    train: Sequence[LabelledImage]
    val: Sequence[LabelledImage]
    labels: float = 1.0
    along: tuple[Lesson, ...] = ()


@dataclass(frozen=True, slots=True)
class Learned:
    """What a training came to.

    Attributes:
        detections: on the images of ``val``, in their order.
        epochs: passes over what was learned from: images, or the tiles of large ones.
        seconds: of the training alone.
        notes: what else is worth keeping with the figures; plain values.
    """

    detections: Sequence[Prediction]
    epochs: float
    seconds: float
    notes: dict[str, Any]


class Contestant(Protocol):
    """Someone who learns from scratch, or from a given start."""

    @property
    def name(self) -> str:
        """For rows and folders."""
        ...

    @property
    def image_px(self) -> int:
        """Side of the image that it is shown."""
        ...

    def identity(self, lesson: Lesson) -> dict[str, Any]:
        """All but data, budget and seed that decides what it learns, its code included; plain values."""
        ...

    def learn(
        self, lesson: Lesson, budget: Budget, seed: int, folder: Path, progress: ProgressReporter
    ) -> Learned:
        """Train and look at ``lesson.val``.

        Called again after a kill with the same folder, it ends with the same kind of answer.

        Args:
            folder: its own, to keep what it needs.
        """
        ...
