"""What a contestant is: it learns from the same pictures for the same time and answers with findings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dsmoe_core.predict import MOST_FINDINGS
from dsmoe_core.schema import LabelledPicture, PictureFindings, Vocabulary
from pipelines.detectors.backend import FAINT
from pipelines.progress import Told

MIN_SCORE = FAINT
"""For everybody."""
MOST = MOST_FINDINGS
"""Findings a picture, for everybody; COCO looks at no more of a class."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How long to train: minutes of wall-clock, or passes over the training pictures; one of them."""

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
        labels: share of the training pictures that ``train`` is.
        along: other sets whose training pictures are learned along with it, in their own words.
    """

    name: str
    vocabulary: Vocabulary
    train: Sequence[LabelledPicture]
    val: Sequence[LabelledPicture]
    labels: float = 1.0
    along: tuple[Lesson, ...] = ()


@dataclass(frozen=True, slots=True)
class Learned:
    """What a training came to.

    Attributes:
        findings: on the pictures of ``val``, in their order.
        epochs: passes over what was learned from: pictures, or the tiles of large ones.
        seconds: of the training alone.
        notes: what else is worth keeping with the figures; plain values.
    """

    findings: Sequence[PictureFindings]
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
        """Side of the picture that it is shown."""
        ...

    def identity(self, lesson: Lesson) -> dict[str, Any]:
        """All but data, budget and seed that decides what it learns, its code included; plain values."""
        ...

    def learn(self, lesson: Lesson, budget: Budget, seed: int, folder: Path, told: Told) -> Learned:
        """Train and look at ``lesson.val``.

        Called again after a kill with the same folder, it ends with the same kind of answer.

        Args:
            folder: its own, to keep what it needs.
        """
        ...
