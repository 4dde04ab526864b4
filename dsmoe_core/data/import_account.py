"""Account of an import: what was in the files, what was taken, clipped or left out, and why.

Readers make it with ``AnnotationSetBuilder``. For images and boxes, the number in the files equals
the number taken, clipped and left out (:attr:`ImportAccount.is_balanced`). Matching labels with images adds
to it (``AnnotationSet.match``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, NamedTuple

from dsmoe_core.errors import FormatError

MAX_NAMED = 10
"""Entries that the terminal and the page show by name; the file has all."""
MAX_REFUSED = 100
"""Entries that the error of a strict import lists."""


class Kind(StrEnum):
    """What an entry of the account is about."""

    IMAGE = "image"
    BOX = "box"


class Action(StrEnum):
    """What the import did with an image or a box that it did not take as it is."""

    CLIPPED = "clipped"
    LEFT_OUT = "left out"


class Unlabelled(StrEnum):
    """How images without a box count."""

    NEGATIVE = "negative"
    """Free of defects."""
    IGNORE = "ignore"
    """Not labelled; they are left out."""


class Conversion(StrEnum):
    """How a box was obtained that is not stated as a box; it counts as taken."""

    POLYGON = "box around a polygon"
    MASK = "box around a mask"
    CROWD = "box of a crowd region"
    ROTATED = "box around a rotated box"
    TURNED = "opposite corners exchanged"
    ELLIPSE = "box around an ellipse"
    UPRIGHT = "turned upright with its image, by the image's EXIF rotation"


class Reason(StrEnum):
    """Why an image or a box was clipped or left out."""

    OVER_EDGE = "it reaches over the edge of its image"
    OUTSIDE_IMAGE = "it lies outside its image"
    NO_AREA = "it has no area"
    NOT_FINITE = "it has a coordinate that is not finite"
    NOT_NUMBERS = "its coordinates are not numbers"
    NOT_FRACTIONS = "its coordinates are not fractions of the image's size"
    NO_BOX = "it has neither a box nor a polygon nor a mask"
    WRONG_MASK = "its mask cannot be decoded or has another size than the image"
    WRONG_COLUMNS = "its row has a wrong number of columns"
    UNKNOWN_IMAGE = "the file does not list its image"
    UNKNOWN_CLASS = "the file does not name its class"
    BLANK_CLASS = "its class has no name"
    NOT_AN_ENTRY = "it is not an object with the expected keys"
    NO_NAME = "it has no file name that can be used"
    NO_SIZE = "its size is neither in the labels nor in an image file"
    DUPLICATE_ID = "another image has the same id"
    DUPLICATE_ENTRY = "it is listed twice"
    CONFLICTING_LABELS = "it is listed twice, with different boxes"
    UNREADABLE_LABELS = "its label file cannot be read"
    EVERY_BOX_LEFT_OUT = "all its boxes were left out"
    UNLABELLED = "it has no box and counts as not labelled"
    NO_IMAGE = "there is no such image"
    UNREADABLE_IMAGE = "its image cannot be read"
    NO_CLASS = "it has no class"
    SEVERAL_CLASSES = "it has more than one class"
    SEVERAL_PARTS = "its mask has more than one part"
    NOT_CLOSED = "its outline is not closed"
    SKIPPED = "it was skipped"
    DOUBTFUL = "it came back in doubt"
    AMBIGUOUS_IMAGE = "several images or names fit"
    WRONG_SIZE = "its image has another size"
    UNCLEAR_ROTATION = "its image has an EXIF rotation, and the labels are partly for rotated images"
    SAME_CONTENT = "another image has the same content and the same boxes"
    SAME_CONTENT_OTHER_BOXES = "another image has the same content and other boxes, which are taken"
    SENT_OUT = "its image is with the annotators in Label Studio"
    ANNOTATED = "its image was annotated in Label Studio, which counts"


def counted(count: int, singular: str, plural: str) -> str:
    """A number with its noun."""
    return f"{count} {singular if count == 1 else plural}"


class AccountEntry(NamedTuple):
    """One image or box that was clipped or left out.

    Attributes:
        image: name of the image; empty where the file does not state it.
        where: file, and annotation id, line or object number in it.
        detail: the values that are wrong.
        boxes: of an image that is left out, the number of its boxes, which are left out with it.
    """

    kind: Kind
    action: Action
    image: str
    where: str
    reason: Reason
    detail: str = ""
    boxes: int = 0

    def __str__(self) -> str:
        place = f"({self.where})" if self.where else ""
        detail = f": {self.detail}" if self.detail else ""
        boxes = f" with {counted(self.boxes, 'box', 'boxes')}" if self.boxes else ""
        subject = " ".join(part for part in (self.kind, self.image, place) if part)
        return f"{subject} {self.action}{boxes}: {self.reason}{detail}"


class LeftOutImage(NamedTuple):
    """An image of the labels that is left out after reading.

    Attributes:
        name: as in the annotation set.
        boxes: number of its boxes in the annotation set.
    """

    name: str
    boxes: int
    reason: Reason
    where: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ImportAccount:
    """Numbers of images and boxes of one import, and every one that was clipped or left out.

    Attributes:
        images_in: image entries in the files.
        boxes_in: box entries in the files.
        images_taken: images in the annotation set.
        boxes_taken: boxes that were taken unchanged.
        images_without_box: images taken, or left out as not labelled, that have no box.
        unlabelled: how images without a box count; None before it is decided.
        entries: what was clipped or left out, in the order of the files.
        conversions: number of boxes taken that were not stated as boxes, by kind.
        notes: further remarks about the import, one sentence each.
        images_without_labels: names of images in the folder that the labels do not list.
        images_turned: names of images whose boxes were turned upright, by the image's EXIF rotation.
    """

    images_in: int = 0
    boxes_in: int = 0
    images_taken: int = 0
    boxes_taken: int = 0
    images_without_box: int = 0
    unlabelled: Unlabelled | None = None
    entries: tuple[AccountEntry, ...] = ()
    conversions: Mapping[Conversion, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    images_without_labels: tuple[str, ...] = ()
    images_turned: tuple[str, ...] = ()

    @property
    def boxes_clipped(self) -> int:
        """Boxes that were taken after clipping to their image."""
        return sum(e.action is Action.CLIPPED for e in self.entries)

    @property
    def boxes_left_out(self) -> int:
        """Boxes that were left out, by themselves or with their image."""
        left_out = (e for e in self.entries if e.action is Action.LEFT_OUT)
        return sum(1 if e.kind is Kind.BOX else e.boxes for e in left_out)

    @property
    def images_left_out(self) -> int:
        """Images that were left out."""
        return sum(e.kind is Kind.IMAGE for e in self.entries)

    @property
    def is_balanced(self) -> bool:
        """Whether every image and every box is counted as taken, clipped or left out."""
        boxes = self.boxes_taken + self.boxes_clipped + self.boxes_left_out
        return self.images_in == self.images_taken + self.images_left_out and self.boxes_in == boxes

    def by_reason(self) -> dict[tuple[Kind, Action, Reason], int]:
        """Number of entries for each kind, action and reason, the most frequent first."""
        return dict(Counter((e.kind, e.action, e.reason) for e in self.entries).most_common())

    def without_images(self, left_out: Iterable[LeftOutImage]) -> ImportAccount:
        """The account after images that were taken are left out, with all their boxes.

        Args:
            left_out: images of the annotation set, each once.
        """
        dropped = {image.name: image for image in left_out}
        kept = tuple(e for e in self.entries if e.action is Action.LEFT_OUT or e.image not in dropped)
        clipped = len(self.entries) - len(kept)
        added = (
            AccountEntry(Kind.IMAGE, Action.LEFT_OUT, d.name, d.where, d.reason, d.detail, d.boxes)
            for d in dropped.values()
        )
        no_box = sum(not d.boxes and d.reason is not Reason.UNLABELLED for d in dropped.values())
        return replace(
            self,
            images_taken=self.images_taken - len(dropped),
            images_without_box=self.images_without_box - no_box,
            boxes_taken=self.boxes_taken - sum(d.boxes for d in dropped.values()) + clipped,
            entries=(*kept, *added),
        )

    def with_notes(self, *notes: str) -> ImportAccount:
        """The account with further notes."""
        return replace(self, notes=(*self.notes, *notes))

    def require_complete(self, source: str) -> None:
        """Refuse an import from which anything was clipped or left out.

        Images without a box that count as not labelled are the user's choice and are not refused.

        Args:
            source: where the labels come from, for the message.

        Raises:
            FormatError: lists the first hundred entries in its details.
        """
        refused = [e for e in self.entries if e.reason is not Reason.UNLABELLED]
        if not refused:
            return
        details = [str(e) for e in refused[:MAX_REFUSED]]
        if len(refused) > MAX_REFUSED:
            details.append(f"and {len(refused) - MAX_REFUSED} more")
        raise FormatError(
            f"{source}: {len(refused)} entries cannot be taken unchanged, and --strict is given",
            "Correct the entries, or omit --strict.",
            details=details,
        )

    def to_dict(self) -> dict[str, Any]:
        """The account as a dictionary that JSON can hold, with the derived numbers."""
        return {
            **asdict(self),
            "boxes_clipped": self.boxes_clipped,
            "boxes_left_out": self.boxes_left_out,
            "images_left_out": self.images_left_out,
            "entries": [e._asdict() for e in self.entries],
            "by_reason": [
                {"kind": kind, "action": action, "reason": reason, "count": count}
                for (kind, action, reason), count in self.by_reason().items()
            ],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ImportAccount:
        """Inverse of :meth:`to_dict`."""
        entries = (
            AccountEntry(
                **{
                    **entry,
                    "kind": Kind(entry["kind"]),
                    "action": Action(entry["action"]),
                    "reason": Reason(entry["reason"]),
                }
            )
            for entry in values["entries"]
        )
        unlabelled = values["unlabelled"]
        return cls(
            images_in=values["images_in"],
            boxes_in=values["boxes_in"],
            images_taken=values["images_taken"],
            boxes_taken=values["boxes_taken"],
            images_without_box=values["images_without_box"],
            unlabelled=None if unlabelled is None else Unlabelled(unlabelled),
            entries=tuple(entries),
            conversions={Conversion(name): count for name, count in values["conversions"].items()},
            notes=tuple(values["notes"]),
            images_without_labels=tuple(values["images_without_labels"]),
            images_turned=tuple(values["images_turned"]),
        )


def merged_accounts(accounts: Iterable[ImportAccount]) -> ImportAccount:
    """One account of the labels that were read from several files."""
    rows = list(accounts)
    conversions: Counter[Conversion] = Counter()
    for row in rows:
        conversions.update(row.conversions)
    return ImportAccount(
        images_in=sum(a.images_in for a in rows),
        boxes_in=sum(a.boxes_in for a in rows),
        images_taken=sum(a.images_taken for a in rows),
        boxes_taken=sum(a.boxes_taken for a in rows),
        images_without_box=sum(a.images_without_box for a in rows),
        unlabelled=next((a.unlabelled for a in rows if a.unlabelled is not None), None),
        entries=tuple(e for a in rows for e in a.entries),
        conversions=dict(conversions),
        notes=tuple(dict.fromkeys(note for a in rows for note in a.notes)),
        images_without_labels=tuple(name for a in rows for name in a.images_without_labels),
        images_turned=tuple(name for a in rows for name in a.images_turned),
    )
