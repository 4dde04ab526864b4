"""The words everyone shares: boxes, images, classes, detections, annotations, outcomes. No torch here.

One boundary type per thing. Coordinates are absolute pixels of the *workspace's* image (already turned
upright), x to the right, y down, ``x1 <= x < x2``; formats and services convert at their own edge.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from dsmoe_core.errors import BoxError, ClassBookError


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-aligned box, in pixels, top-left and bottom-right corner.

    Raises:
        BoxError: a corner is not finite, or the box has no area.
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
        return (self.x1, self.y1, self.x2, self.y2)

    @property
    def width(self) -> float:
        return self.x2 - self.x1

    @property
    def height(self) -> float:
        return self.y2 - self.y1

    @property
    def area(self) -> float:
        return self.width * self.height

    def inside(self, width: int, height: int, tolerance: float = 1.0) -> bool:
        """Whether the box lies in an image of this size, up to a rounding tolerance in pixels."""
        return (
            self.x1 >= -tolerance
            and self.y1 >= -tolerance
            and self.x2 <= width + tolerance
            and self.y2 <= height + tolerance
        )

    def clipped(self, width: int, height: int) -> Box:
        """The part inside an image of this size.

        Raises:
            BoxError: nothing of it is inside.
        """
        return Box(
            min(max(self.x1, 0.0), float(width)),
            min(max(self.y1, 0.0), float(height)),
            min(max(self.x2, 0.0), float(width)),
            min(max(self.y2, 0.0), float(height)),
        )


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """An image of the workspace: readable, upright, 8 bit.

    Attributes:
        key: sha256 (hex) of the bytes as they came in; the identity everywhere.
        name: the path it came in under, relative to its folder; for people.
        path: the file to read.
        width, height: pixels.
        region: left, top, right, bottom of the part of the file that this is; None for all of it.
    """

    key: str
    name: str
    path: Path
    width: int
    height: int
    region: tuple[int, int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class Annotation:
    """What a person says is at one place."""

    box: Box
    label: str


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An image with everything a person says is on it; no annotations means: no defect."""

    image: ImageRecord
    annotations: tuple[Annotation, ...]


@dataclass(frozen=True, slots=True)
class Detection:
    """What the detector says about one place and one class; a place may be found as several.

    Attributes:
        label: the class that it is found as.
        score: its probability, 0 to 1.
        probabilities: per class, 0 to 1 each; independent (sigmoid), they need not sum to one.
        entropy: mean binary entropy over the classes in nats, 0 (sure) to ln 2.
    """

    box: Box
    label: str
    score: float
    probabilities: Mapping[str, float]
    entropy: float

    @property
    def is_top_class(self) -> bool:
        """Whether no other class is more probable here."""
        other = self.second_best
        return other is None or other[1] <= self.score

    @property
    def second_best(self) -> tuple[str, float] | None:
        """The most probable other class and its probability; None where there is one class only."""
        others = [(name, p) for name, p in self.probabilities.items() if name != self.label]
        return max(others, key=lambda item: item[1]) if others else None


@dataclass(frozen=True, slots=True)
class Routing:
    """Which experts looked at an image (stage 7).

    Attributes:
        experts: the chosen experts' indices, best first.
        weights: their weights, in the same order, summing to one.
        entropy: of the router's whole distribution, in nats.
    """

    experts: tuple[int, ...]
    weights: tuple[float, ...]
    entropy: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """All detections on one image, highest score first, with how they came about.

    Attributes:
        uncertainty: what an acquisition function may rank by; higher = label sooner.
        version: model version and class-book version, ``MODEL+BOOK``.
    """

    key: str
    detections: tuple[Detection, ...]
    routing: Routing
    uncertainty: float
    version: str


@dataclass(frozen=True, slots=True)
class ClassText:
    """One class of a vocabulary: its name, what it looks like in words, and its parent in the taxonomy."""

    name: str
    description: str
    parent: str | None = None
    paraphrases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What the detector needs of a class book: the leaf classes in order, and the inner nodes above them.

    Attributes:
        version: content hash of the class book this was taken from.
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
        return tuple(c.name for c in self.classes)

    def index(self, name: str) -> int:
        """Position of a class.

        Raises:
            ClassBookError: the vocabulary lacks it.
        """
        if name not in self._index:
            raise ClassBookError(
                f"class {name!r} is not in the class book, which has {', '.join(self.names)}",
                "Add it to the class book, or an alias for it.",
            )
        return self._index[name]

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "classes": [asdict(c) for c in self.classes],
            "inner": [asdict(c) for c in self.inner],
            "version": self.version,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Vocabulary:
        """The inverse of :meth:`to_dict`."""

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


class LabelledSet(NamedTuple):
    """Images labelled completely with the classes of one class book."""

    images: Sequence[LabelledImage]
    vocabulary: Vocabulary


@dataclass(frozen=True, slots=True)
class Harvest:
    """One image as it came back from annotation.

    Attributes:
        annotation_id, updated_at: identify this state of it; a later state replaces an earlier one.
        skipped: the annotator passed it over; its annotations count for nothing.
        outcomes: how many pre-annotated boxes were accepted, moved, ..., and how many boxes were added.
        version: of the pre-annotations shown, ``MODEL+BOOK``; None where none were shown.
        seconds: how long it took, where the server knows.
        doubt: what keeps it from counting as labelled ("unsure", "needs an expert"); None where nothing does.
        note: what the annotator wrote for the domain expert.
        annotators: whose answers this is made of; 0 where all were taken back, or none was given yet.
        agreement: of several annotators on boxes and classes, 0 to 1; None where fewer than two judged it.
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

    @property
    def labelled(self) -> bool:
        """Whether its annotations are to be learned from."""
        return self.annotators > 0 and not self.skipped and self.doubt is None
