"""Builder of annotation sets for the readers: takes entries one by one and accounts for each.

A reader adds an :class:`ImageDraft` for each image entry, and its boxes to the draft. Entries that cannot be
used are left out with a reason, never with an exception.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator

from dsmoe_core.data.annotation_set import AnnotationSet, ImageAnnotations
from dsmoe_core.data.import_account import AccountEntry, Action, Conversion, ImportAccount, Kind, Reason
from dsmoe_core.errors import BoxError
from dsmoe_core.schema import Annotation, Box

ROUNDING_PX = 0.5
"""A box that reaches over the edge by at most this much has a rounding error and counts as unchanged."""

Corners = tuple[float, float, float, float]


class ImageDraft:
    """The entry of one image while it is read.

    Args:
        name: as the file states it, with forward slashes.
        where: the file, and the entry in it.
        size: width and height of the upright image in pixels.
    """

    def __init__(self, name: str, where: str, size: tuple[int, int]) -> None:
        self.name = name
        self.where = where
        self.size = size
        self.annotations: list[Annotation] = []
        self.entries: list[AccountEntry] = []
        self.conversions: Counter[Conversion] = Counter()
        self.boxes_in = 0

    def add_box(
        self, corners: Corners, label: str, where: str, conversions: Iterable[Conversion] = ()
    ) -> None:
        """Take a box, clipped to the image, or leave it out if nothing of it is on the image.

        Args:
            corners: x1, y1, x2, y2 in pixels.
            where: the file, and the entry in it.
            conversions: how the corners were obtained, if they are not stated as a box.
        """
        detail = f"({', '.join(f'{v:g}' for v in corners)}) in {self.size[0]}x{self.size[1]} pixels"
        box, reason = _fitted(corners, self.size)
        if box is None:
            self.leave_out_box(where, reason or Reason.NO_AREA, detail)
            return
        self.boxes_in += 1
        self.annotations.append(Annotation(box, label))
        self.conversions.update(conversions)
        if reason is not None:
            self.entries.append(AccountEntry(Kind.BOX, Action.CLIPPED, self.name, where, reason, detail))

    def leave_out_box(self, where: str, reason: Reason, detail: str = "") -> None:
        """Leave out a box of this image.

        Args:
            where: the file, and the entry in it.
            detail: the values that are wrong.
        """
        self.boxes_in += 1
        self.entries.append(AccountEntry(Kind.BOX, Action.LEFT_OUT, self.name, where, reason, detail))


def _fitted(corners: Corners, size: tuple[int, int]) -> tuple[Box | None, Reason | None]:
    """The box inside its image, and why it was clipped or cannot be taken."""
    if not all(math.isfinite(v) for v in corners):
        return None, Reason.NOT_FINITE
    try:
        box = Box(*corners)
    except BoxError:
        return None, Reason.NO_AREA
    try:
        clipped = box.clipped(*size)
    except BoxError:
        return None, Reason.OUTSIDE_IMAGE
    return clipped, None if box.inside(*size, tolerance=ROUNDING_PX) else Reason.OVER_EDGE


class AnnotationSetBuilder:
    """Collects the image entries of one or several annotation files.

    Attributes:
        states_negatives: the files state that their images without a box are free of defects.
    """

    def __init__(self) -> None:
        self.states_negatives = False
        self._classes: dict[str, None] = {}
        self._drafts: list[ImageDraft] = []
        self._left_out: list[AccountEntry] = []
        self._notes: dict[str, None] = {}

    def declare(self, classes: Iterable[str]) -> None:
        """Add the classes of a file, in its order."""
        self._classes.update(dict.fromkeys(classes))

    def note(self, sentence: str) -> None:
        """Add a remark to the account."""
        self._notes[sentence] = None

    def image(self, name: str, where: str, size: tuple[int, int]) -> ImageDraft:
        """Add an image entry; its boxes are added to the returned draft."""
        draft = ImageDraft(name, where, size)
        self._drafts.append(draft)
        return draft

    def leave_out_image(
        self, name: str, where: str, reason: Reason, detail: str = "", boxes: int = 0
    ) -> None:
        """Leave out an image entry.

        Args:
            name: of the image; empty where it is not known.
            where: the file, and the entry in it.
            detail: the values that are wrong.
            boxes: number of its box entries, which are left out with it.
        """
        self._left_out.append(AccountEntry(Kind.IMAGE, Action.LEFT_OUT, name, where, reason, detail, boxes))

    def leave_out_box(self, where: str, reason: Reason, detail: str = "") -> None:
        """Leave out a box entry that belongs to no image entry."""
        self._left_out.append(AccountEntry(Kind.BOX, Action.LEFT_OUT, "", where, reason, detail))

    def build(self) -> AnnotationSet:
        """The annotation set with its account.

        An image of which every box was left out is left out too, since it would count as free of defects.
        """
        entries = list(self._left_out)
        images: list[ImageAnnotations] = []
        conversions: Counter[Conversion] = Counter()
        clipped = 0
        for draft, duplicate in self._checked_drafts():
            left_out = [e for e in draft.entries if e.action is Action.LEFT_OUT]
            reason = duplicate or (
                Reason.EVERY_BOX_LEFT_OUT if draft.boxes_in and not draft.annotations else None
            )
            if reason is None:
                images.append(ImageAnnotations(draft.name, *draft.size, tuple(draft.annotations)))
                entries += draft.entries
                clipped += len(draft.entries) - len(left_out)
                conversions.update(draft.conversions)
                continue
            boxes = len(draft.annotations)
            entries += left_out
            entries.append(
                AccountEntry(Kind.IMAGE, Action.LEFT_OUT, draft.name, draft.where, reason, "", boxes)
            )
        account = ImportAccount(
            images_in=len(self._drafts) + sum(e.kind is Kind.IMAGE for e in self._left_out),
            boxes_in=self._boxes_in(),
            images_taken=len(images),
            boxes_taken=sum(len(image.annotations) for image in images) - clipped,
            images_without_box=sum(not image.annotations for image in images),
            entries=tuple(entries),
            conversions=dict(conversions),
            notes=tuple(self._notes),
        )
        return AnnotationSet(tuple(self._classes), tuple(images), account, self.states_negatives)

    def _boxes_in(self) -> int:
        alone = sum(1 if e.kind is Kind.BOX else e.boxes for e in self._left_out)
        return alone + sum(draft.boxes_in for draft in self._drafts)

    def _checked_drafts(self) -> Iterator[tuple[ImageDraft, Reason | None]]:
        """Every draft, with the reason if it is left out as a duplicate.

        Of several entries of one image the first is taken if the others have the same boxes or none; entries
        with different boxes are all left out.
        """
        groups: dict[str, list[ImageDraft]] = {}
        for draft in self._drafts:
            groups.setdefault(draft.name, []).append(draft)
        for group in groups.values():
            first = next((d for d in group if d.boxes_in), group[0])
            others = [d for d in group if d is not first]
            conflict = any(d.boxes_in and set(d.annotations) != set(first.annotations) for d in others)
            for draft in group:
                if conflict:
                    yield draft, Reason.CONFLICTING_LABELS
                else:
                    yield draft, None if draft is first else Reason.DUPLICATE_ENTRY
