"""Studio: the interface of a labelling server, and its data types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

from annotate.studio.class_change import ClassChange, Resolve, no_aliases
from dsmoe_core.progress import CountCallback
from dsmoe_core.schema import Arm, Box, Harvest, ImageRecord, Prediction, Vocabulary

Consensus = Literal["latest", "majority", "union"]
Origin = Literal["manual", "prediction", "prediction-changed"]


@dataclass(frozen=True, slots=True)
class Connection:
    """Address of a labelling server and how to sign in. ``repr`` hides password and token.

    Attributes:
        token: sent with every request; never logged.
        document_root: the folder below which the server may read images, as a path on the server.
    """

    url: str
    username: str
    password: str = field(repr=False)
    token: str = field(repr=False)
    document_root: Path


@dataclass(frozen=True, slots=True)
class Task:
    """An image to annotate.

    Attributes:
        round: number of the round, from 0.
        arm: how it was selected: ``seed`` (before the first model), ``ranked`` (by the acquisition score)
            or ``random`` (control arm).
        rank: position in its round; 0 comes first.
        prediction: source of the pre-annotations; None before the first model and in the blind audit.
        acquisition, score: name of the acquisition function and the image's acquisition score; None in a
            round before the first model.
    """

    image: ImageRecord
    round: int
    arm: Arm
    rank: int
    prediction: Prediction | None
    acquisition: str | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Region:
    """One box of a pre-annotation or an annotation.

    Attributes:
        id: the same in pre-annotation and annotation, so that outcomes can be counted.
        origin: Label Studio's origin: drawn by hand, unchanged pre-annotation, or changed pre-annotation.
        score: detection score, 0 to 1; None for a box drawn by hand.
    """

    id: str
    box: Box
    label: str
    origin: Origin
    score: float | None


@dataclass(frozen=True, slots=True)
class OpenTask:
    """A task that has not been annotated or skipped.

    Attributes:
        key: of its image.
        width, height: of its image, in pixels.
        pre_annotations: boxes shown when the task is opened.
        prediction_id: the server's id of the prediction that holds the pre-annotations; None without one.
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
    """A labelling server. Every call can be repeated after an interruption without creating duplicates.

    Every call raises StudioError if the server refuses the request, times out or cannot be reached.
    """

    def ensure_project(
        self,
        title: str,
        vocabulary: Vocabulary,
        *,
        owner: str = "",
        resolve: Resolve = no_aliases,
        project: int | None = None,
        progress: CountCallback | None = None,
    ) -> int:
        """Create the project with this title if needed, set its classes, and return its id.

        A class of the project that is not in the vocabulary is renamed if ``resolve`` gives its new name:
        annotations and pre-annotations are rewritten. Otherwise it is removed, which is refused if an
        annotation uses it.

        Args:
            owner: the owning workspace (letters and digits). A project without an owner gets this one. With
                "" the owner does not matter.
            resolve: gives the class of an old name; raises ClassBookError for an unknown name.
            project: id that the project had before. If it still belongs to the owner, it is used, although
                its title was changed on the server.
            progress: called while annotations are rewritten.

        Raises:
            ClassBookError: the labelling interface cannot show a class name.
            StudioError: the title does not have 3 to 50 characters, the project belongs to another owner, or
                annotations use a class that is not in the vocabulary. Nothing was changed.
        """
        ...

    def class_change(
        self,
        title: str,
        vocabulary: Vocabulary,
        *,
        owner: str = "",
        resolve: Resolve = no_aliases,
        project: int | None = None,
    ) -> ClassChange:
        """The class change that ``ensure_project`` would make, with usage counts. Changes nothing."""
        ...

    def import_tasks(
        self, project: int, tasks: Sequence[Task], *, progress: CountCallback | None = None
    ) -> dict[str, int]:
        """Import tasks with their pre-annotations.

        An image that already has a task gets no second one. An open task gets the new round, rank and
        pre-annotations; an annotated task stays as it is.

        Args:
            tasks: indexed twice and not stored, so the sequence may create each task on access.

        Returns:
            Image key -> task id, in the given order.

        Raises:
            ClassBookError: a detection has a class that the project lacks. Nothing was imported.
            BoxError: a detection lies outside its image. Nothing was imported.
        """
        ...

    def open_tasks(self, project: int) -> list[OpenTask]:
        """The open tasks, sorted by round, then by rank."""
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
        """Submit an annotation as the labelling interface does. A second submission changes nothing.

        Args:
            seconds: annotation time.
            skipped: the annotator skipped the task.

        Raises:
            ClassBookError: a region has a class that the project lacks.
            BoxError: a region lies outside the image.
        """
        ...

    def harvest(
        self, project: int, *, since: datetime | None = None, consensus: Consensus = "latest"
    ) -> list[Harvest]:
        """The annotations of all annotated tasks, oldest first.

        Args:
            since: leave out tasks last changed before this time (server clock, with a time zone). A change
                at exactly this time is returned again: detect it by ``annotation_id`` and ``updated_at``.
                If given, changed tasks without annotations are included with ``annotators`` = 0.
            consensus: how several annotations of one image are combined: the ``latest`` only, the boxes of
                the ``majority``, or the ``union`` of all boxes. An annotation marked as ground truth
                overrides all others.
        """
        ...

    def set_agreement(self, project: int, agreement: Mapping[str, float]) -> None:
        """Store the annotators' agreement in the tasks, for the view of disagreements.

        Args:
            agreement: image key -> 0 to 1.
        """
        ...

    def set_label_errors(self, project: int, scores: Mapping[str, float]) -> int:
        """Store scores of probable label errors in annotated tasks, for their view; other tasks lose theirs.

        Args:
            scores: image key -> 0 to 1, higher = more probable.

        Returns:
            Number of tasks that have a score.
        """
        ...
