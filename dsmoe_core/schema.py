"""Data types that all packages share: images, boxes, annotations, detections, classes, annotation results.

The types of the main data flow, each with its producer:

- :class:`ImageRecord`: an image of the workspace (ingest).
- :class:`Vocabulary` of :class:`ClassText`: classes and descriptions, taken from a class book.
- :class:`Prediction` of :class:`Detection`: output of the detector for one image.
- :class:`LabelledImage` of :class:`Annotation`: ground truth of one image.
- :class:`Harvest`: one annotated image as it comes back from Label Studio.

Box coordinates are absolute pixels of the workspace's image (after EXIF rotation): x to the right, y down,
and ``x1 <= x < x2``. Importers and exporters convert from and to other conventions. This module does not
import torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsmoe_core.data.import_account import ImportAccount
from dsmoe_core.errors import BoxError, ClassBookError


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-aligned box in pixels: top-left corner (x1, y1), bottom-right corner (x2, y2).

    Raises:
        BoxError: a coordinate is not finite, or the box has no area.
    """

    x1: float
    y1: float
    x2: float
    y2: float

    def __post_init__(self) -> None:
        if not all(math.isfinite(v) for v in self.corners):
            raise BoxError(
                f"box {self.corners} has a corner that is not finite", "Correct or remove this box."
            )
        if self.x2 <= self.x1 or self.y2 <= self.y1:
            raise BoxError(
                f"box {self.corners} has no area; expected x1 < x2 and y1 < y2", "Correct or remove this box."
            )

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """(x1, y1, x2, y2)."""
        return (self.x1, self.y1, self.x2, self.y2)

    @property
    def width(self) -> float:
        """Width in pixels."""
        return self.x2 - self.x1

    @property
    def height(self) -> float:
        """Height in pixels."""
        return self.y2 - self.y1

    @property
    def area(self) -> float:
        """Area in square pixels."""
        return self.width * self.height

    def inside(self, width: int, height: int, tolerance: float = 1.0) -> bool:
        """Whether the box lies inside an image of this size.

        Args:
            tolerance: pixels by which the box may exceed the image, for rounding errors.
        """
        return (
            self.x1 >= -tolerance
            and self.y1 >= -tolerance
            and self.x2 <= width + tolerance
            and self.y2 <= height + tolerance
        )

    def clipped(self, width: int, height: int) -> Box:
        """The part of the box inside an image of this size.

        Raises:
            BoxError: the box lies outside the image.
        """
        return Box(
            min(max(self.x1, 0.0), float(width)),
            min(max(self.y1, 0.0), float(height)),
            min(max(self.x2, 0.0), float(width)),
            min(max(self.y2, 0.0), float(height)),
        )


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """An image of the workspace: a readable file, upright, 8 bits per channel.

    Attributes:
        key: SHA-256 (hex) of the original file; identifies the image everywhere.
        name: original path, relative to the imported folder; for display.
        path: the file to read.
        width, height: size in pixels.
        region: left, top, right, bottom of a crop of the file, in pixels; None for the whole file.
        orientation: EXIF orientation of the original file, 1 to 8; 1 for upright, or where it is not known.
    """

    key: str
    name: str
    path: Path
    width: int
    height: int
    region: tuple[int, int, int, int] | None = None
    orientation: int = 1


@dataclass(frozen=True, slots=True)
class Annotation:
    """One ground-truth box with its class, drawn by a person."""

    box: Box
    label: str


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """A completely annotated image; without annotations it shows no defect."""

    image: ImageRecord
    annotations: tuple[Annotation, ...]


@dataclass(frozen=True, slots=True)
class Detection:
    """One box of the detector. The same place can have one detection per class.

    Attributes:
        label: the detected class.
        score: probability of ``label``, 0 to 1.
        probabilities: of every class, 0 to 1 each; independent (sigmoid), so they need not sum to 1.
        entropy: mean binary entropy of ``probabilities`` in nats, 0 (certain) to ln 2.
        expert: index of the expert with the highest weight at the box's centre; None without a router.
        uncertainty: raw uncertainty scores by name (``dsmoe_core.uncertainty``), higher = more uncertain;
            empty for a detector that computes none.
        risks: probabilities of concrete errors by score name, and of being ``correct``; empty without a
            calibration (``dsmoe_core.uncertainty.calibration``).
    """

    box: Box
    label: str
    score: float
    probabilities: Mapping[str, float]
    entropy: float
    expert: int | None = None
    uncertainty: Mapping[str, float] = field(default_factory=dict)
    risks: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_top_class(self) -> bool:
        """Whether no other class has a higher probability in this box."""
        second = self.second_best
        return second is None or second[1] <= self.score

    @property
    def second_best(self) -> tuple[str, float] | None:
        """The most probable class other than ``label``, with its probability; None if there is one class
        only."""
        others = [(name, p) for name, p in self.probabilities.items() if name != self.label]
        return max(others, key=lambda item: item[1]) if others else None


@dataclass(frozen=True, slots=True)
class Routing:
    """The router's choice of experts for one image (stage 7).

    Attributes:
        experts: indices of the experts that were chosen anywhere in the image, highest weight first.
        weights: mean weight of these experts over the positions of the image; they sum to 1.
        entropy: of the router's distribution over all experts, in nats; the mean over the positions.
    """

    experts: tuple[int, ...]
    weights: tuple[float, ...]
    entropy: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """Output of the detector for one image.

    Attributes:
        key: ``ImageRecord.key``.
        detections: by descending score.
        uncertainty: acquisition score of the image; higher = annotate sooner.
        version: model version and class-book version, ``MODEL+BOOK``.
        risks: ``missed``, the probability of an object without a detection above the operating threshold, and
            ``corrections``, the expected number of boxes to correct; empty without a calibration.
        embedding: image feature vector of length 1, float32; None for a detector that computes none. It is
            not part of the stored predictions.
    """

    key: str
    detections: tuple[Detection, ...]
    routing: Routing
    uncertainty: float
    version: str
    risks: Mapping[str, float] = field(default_factory=dict)
    embedding: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class ClassText:
    """One class, as the text encoder reads it.

    Attributes:
        description: what the defect looks like.
        parent: name of its parent in the taxonomy.
        paraphrases: the same description in other words, used as text augmentation.
    """

    name: str
    description: str
    parent: str | None = None
    paraphrases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The part of a class book that the detector reads.

    Attributes:
        classes: the leaf classes, which are detected; their order is the order of the detector's outputs.
        inner: the inner nodes of the taxonomy.
        version: content hash of the class book.

    Raises:
        ClassBookError: there is no class, or two classes have the same name.
    """

    classes: tuple[ClassText, ...]
    inner: tuple[ClassText, ...] = ()
    version: str = ""
    _index: dict[str, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.classes:
            raise ClassBookError("the class book has no class; expected at least one", "Add a class to it.")
        self._index.update({c.name: i for i, c in enumerate(self.classes)})
        if len(self._index) != len(self.classes):
            raise ClassBookError("the class book names a class twice", "Give every class a name of its own.")

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in order."""
        return tuple(c.name for c in self.classes)

    def index(self, name: str) -> int:
        """Index of a class.

        Raises:
            ClassBookError: there is no such class.
        """
        if name not in self._index:
            raise ClassBookError(
                f"class {name!r} is not in the class book, which has {', '.join(self.names)}",
                "Add it to the class book, or an alias for it.",
            )
        return self._index[name]

    def to_dict(self) -> dict[str, Any]:
        """The vocabulary as a dictionary that JSON can hold."""
        return {
            "classes": [asdict(c) for c in self.classes],
            "inner": [asdict(c) for c in self.inner],
            "version": self.version,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Vocabulary:
        """Inverse of :meth:`to_dict`."""

        def texts(rows: Iterable[Mapping[str, Any]]) -> tuple[ClassText, ...]:
            return tuple(ClassText(**{**row, "paraphrases": tuple(row["paraphrases"])}) for row in rows)

        return cls(texts(values["classes"]), texts(values["inner"]), values["version"])

    def __iter__(self) -> Iterator[ClassText]:
        return iter(self.classes)

    def __len__(self) -> int:
        return len(self.classes)


class Outcome(StrEnum):
    """What an annotator did with one box."""

    ACCEPTED = "accepted"
    MOVED = "moved"
    RELABELLED = "relabelled"
    DELETED = "deleted"
    ADDED = "added"


class Arm(StrEnum):
    """How an image was selected for a round."""

    SEED = "seed"
    """At random, in a round before the first model."""
    RANKED = "ranked"
    """By its acquisition score."""
    RANDOM = "random"
    """At random, as the control of the ranking."""


class LabelledSet(NamedTuple):
    """Images that are annotated completely with the classes of one vocabulary."""

    images: Sequence[LabelledImage]
    vocabulary: Vocabulary


@dataclass(frozen=True, slots=True)
class BoxOutcome:
    """What became of one box.

    Attributes:
        shown: the pre-annotation; None for an added box.
        annotated: the box as annotated; None for a deleted one.
    """

    outcome: Outcome
    shown: Annotation | None
    annotated: Annotation | None


@dataclass(frozen=True, slots=True)
class Harvest:
    """The result of annotating one image, read from Label Studio.

    Attributes:
        key: ``ImageRecord.key``.
        annotation_id, updated_at: identify this state of the annotation; a later state replaces an earlier
            one.
        skipped: the annotator skipped the image; its annotations are ignored.
        outcomes: numbers of accepted, moved, relabelled and deleted pre-annotations, and of added boxes.
        version: of the pre-annotations, ``MODEL+BOOK``; None if the annotator saw none.
        seconds: annotation time; None if the server does not measure it.
        doubt: why the image does not count as labelled ("unsure", "needs an expert"); None if it counts.
        note: the annotator's message to the domain expert.
        annotators: number of annotators whose work this is; 0 if all was withdrawn or none was submitted.
        agreement: of the annotators on boxes and classes, 0 to 1; None with fewer than two annotators.
        account: which regions were taken, clipped or left out; None if there are no annotations.
        annotator_ids: user ids of the labelling server of the annotators that count; neither names nor mail
            addresses. Empty for imported labels.
        boxes: what became of each box; empty for imported labels and skipped images.
    """

    key: str
    annotations: tuple[Annotation, ...]
    annotation_id: int
    updated_at: datetime
    skipped: bool
    outcomes: Mapping[Outcome, int]
    version: str | None
    seconds: float | None
    doubt: str | None = None
    note: str = ""
    annotators: int = 1
    agreement: float | None = None
    account: ImportAccount | None = field(default=None, compare=False)
    annotator_ids: tuple[str, ...] = field(default=(), compare=False)
    boxes: tuple[BoxOutcome, ...] = field(default=(), compare=False)

    @property
    def labelled(self) -> bool:
        """Whether the annotations are used for training."""
        return self.annotators > 0 and not self.skipped and self.doubt is None
