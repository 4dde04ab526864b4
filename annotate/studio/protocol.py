"""What the rest of the house knows of a labelling server: five calls, and the few words they use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

from annotate.studio.class_change import ClassChange, Resolve, no_aliases
from dsmoe_core.progress import CountCallback
from dsmoe_core.schema import Box, Harvest, ImageRecord, Prediction, Vocabulary

Consensus = Literal["latest", "majority", "union"]
Origin = Literal["manual", "prediction", "prediction-changed"]


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a labelling server is and how to sign in. Printing it shows neither password nor token.

    Attributes:
        token: sent with every call; never logged.
        document_root: the folder below which the server may read images, as the server sees it.
    """

    url: str
    username: str
    password: str = field(repr=False)
    token: str = field(repr=False)
    document_root: Path


@dataclass(frozen=True, slots=True)
class Task:
    """An image to be labelled.

    Attributes:
        round: number of the round, from 0.
        arm: how it was chosen: ``seed`` (before there was a model), ``ranked`` or ``random`` (control).
        rank: place in its round, 0 = most useful.
        prediction: becomes the pre-annotations; None where there is no model yet or the image is shown bare.
    """

    image: ImageRecord
    round: int
    arm: Literal["seed", "ranked", "random"]
    rank: int
    prediction: Prediction | None


@dataclass(frozen=True, slots=True)
class Region:
    """One box on the labelling page, as a pre-annotation or as the annotator leaves it.

    Attributes:
        id: stable from pre-annotation to annotation, so that outcomes can be counted.
        origin: as the page writes it: drawn by hand, a pre-annotation left alone, or a pre-annotation
        changed. score: the detector's, 0 to 1; None for a box drawn by hand.
    """

    id: str
    box: Box
    label: str
    origin: Origin
    score: float | None


@dataclass(frozen=True, slots=True)
class OpenTask:
    """A task nobody has annotated or skipped yet.

    Attributes:
        key: of its image.
        width, height: of its image, in pixels.
        prelabels: the boxes that are already drawn when the task is opened.
        prediction_id: the server's name for this set of pre-annotations; None where none are shown.
    """

    task_id: int
    key: str
    round: int
    rank: int
    width: int
    height: int
    pre_annotations: tuple[Region, ...]
    prediction_id: int | None


class Studio(Protocol):
    """A labelling server. Every call may be repeated after a kill: nothing is doubled.

    All calls raise StudioError where the server refuses, hangs or is gone.
    """

    def ensure_project(
        self,
        title: str,
        vocabulary: Vocabulary,
        *,
        owner: str = "",
        resolve: Resolve = no_aliases,
        progress: CountCallback | None = None,
    ) -> int:
        """The project of that title, made if missing, with exactly these classes to choose from.

        A class that the project has and the vocabulary has not is renamed where ``resolve`` knows its new
        name: annotations and pre-annotations are rewritten. Else it is removed, and no annotation may have
        it.

        Args:
            owner: whose it is, letters and digits; one that is nobody's becomes theirs. "": does not matter.
            resolve: the class of an old name; ClassBookError where there is none.
            progress: of the rewriting.

        Raises:
            ClassBookError: a class name cannot be shown on the page.
            StudioError: the title is not 3 to 50 characters long, the project is another owner's, or a class
                that annotations use is gone from the vocabulary. Nothing was changed.
        """
        ...

    def class_change(
        self, title: str, vocabulary: Vocabulary, *, owner: str = "", resolve: Resolve = no_aliases
    ) -> ClassChange:
        """What ``ensure_project`` would change about the classes and how much it touches; changes nothing."""
        ...

    def import_tasks(
        self, project: int, tasks: Sequence[Task], *, progress: CountCallback | None = None
    ) -> dict[str, int]:
        """Send tasks with their pre-annotations; returns image key -> task id, in the order given.

        An image that is there already is not sent again. While nobody has annotated it, it takes over the
        new round, rank and pre-annotations; afterwards it is left as it is.

        Args:
            tasks: looked at twice and never held, so a sequence may make each one when it is asked for.

        Raises:
            ClassBookError: a detection has a class that the project lacks. Nothing was sent.
            BoxError: a detection lies outside its image. Nothing was sent.
        """
        ...

    def open_tasks(self, project: int) -> list[OpenTask]:
        """The tasks still to do, most useful first: by round, then by rank."""
        ...

    def submit(
        self,
        project: int,
        task: OpenTask,
        regions: Sequence[Region],
        *,
        seconds: float,
        skipped: bool = False,
    ) -> None:
        """Hand in what the labelling page hands in. A second submission of a task changes nothing.

        Raises:
            ClassBookError: a region has a class that the project lacks.
            BoxError: a region lies outside the image.
        """
        ...

    def harvest(
        self, project: int, *, since: datetime | None = None, consensus: Consensus = "latest"
    ) -> list[Harvest]:
        """What every annotated image's annotators say together, oldest first.

        Args:
            since: leave out what was last changed before this moment of the server's clock (with a time
                zone). What changed at exactly this moment comes again: tell repeats by ``annotation_id`` and
                ``updated_at``. With it, a changed task without annotations comes too, with ``annotators``
                0: they were taken back, or never given.
            several: where several people annotated one image: the ``latest`` alone counts, the boxes that
                the ``majority`` drew, or the ``union`` of all boxes. An annotation that is marked as ground
                truth outweighs them all.
        """
        ...

    def set_agreement(self, project: int, agreement: Mapping[str, float]) -> None:
        """Write how far several annotators of an image agree beside it, for the view of disagreements.

        Args:
            agreement: by image key, 0 to 1.
        """
        ...
