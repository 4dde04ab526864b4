"""Pairs the entries of annotation files with images, and accounts for what does not fit.

Boxes of a labelled image belong to the upright image. An entry that states the size before the image's EXIF
rotation has its boxes in the stored pixels; they are turned. A square image and one that is only mirrored or
turned by 180 degrees has the same size both ways, so the other images of the set decide.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

from dsmoe_core.data.annotation_set import AnnotationSet, ImageAnnotations
from dsmoe_core.data.exif_boxes import TRANSPOSED, upright_box
from dsmoe_core.data.import_account import Conversion, ImportAccount, LeftOutImage, Reason
from dsmoe_core.data.name_match import match_names
from dsmoe_core.schema import ImageRecord, LabelledImage

Frame = Literal["upright", "stored", "mixed"]
"""Which pixels the boxes of a set belong to, as far as the stated sizes show it."""


class MatchResult(NamedTuple):
    """Images with their annotations.

    Attributes:
        labelled: in the order of the images.
        account: that of the labels, with the entries that no image was found for or whose image does not fit.
        entry_names: name in the labels, by the name of the image.
    """

    labelled: tuple[LabelledImage, ...]
    account: ImportAccount
    entry_names: Mapping[str, str]

    @property
    def missing(self) -> tuple[str, ...]:
        """Names in the labels for which there is no image."""
        return tuple(e.image for e in self.account.entries if e.reason is Reason.NO_IMAGE)


def match_images(
    labels: AnnotationSet,
    images: Iterable[ImageRecord],
    *,
    duplicates: Mapping[str, str] | None = None,
    unreadable: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> MatchResult:
    """Pair the entries of annotation files with images by their names; see ``name_match.py``.

    Images without an entry are left out: they are unlabelled, which differs from free of defects. Of several
    entries for images with the same content, that of the first image is taken.

    Args:
        duplicates: names of further files with the same content as an image, and the name of that image.
        unreadable: names of files that cannot be used as images, and the reason.
        folder: folder of the images.
    """
    given = list(images)
    records = {image.name: image for image in given}
    same_content, damaged = dict(duplicates or {}), dict(unreadable or {})
    files = dict.fromkeys((*records, *same_content, *damaged))
    matches = match_names((e.name for e in labels.images), files, folder)
    counts = Counter(image.name for image in given)
    for name, image_name in list(matches.matched.items()):
        if counts[image_name] > 1:
            matches.ambiguous[name] = (matches.matched.pop(name),) * counts[image_name]
    not_found = (e for e in labels.images if e.name not in matches.matched)
    left_out = [_not_found(e, matches.ambiguous.get(e.name)) for e in not_found]
    entry_of = {matches.matched[e.name]: e for e in labels.images if e.name in matches.matched}
    left_out += [
        LeftOutImage(e.name, len(e.annotations), Reason.UNREADABLE_IMAGE, detail=damaged[name])
        for name, e in entry_of.items()
        if name in damaged
    ]
    chosen, repeated = _one_per_content(entry_of, records, same_content)
    left_out += repeated
    fitted = _Fitting(chosen)
    labelled = []
    for image, entry in chosen:
        result = fitted.fit(entry, image)
        if isinstance(result, LeftOutImage):
            left_out.append(result)
        else:
            labelled.append(result)
    listed = set(entry_of)
    without_labels = tuple(n for n in (*records, *same_content) if n not in listed)
    account = labels.account.without_images(left_out)
    conversions = dict(account.conversions)
    if fitted.boxes_turned:
        conversions[Conversion.UPRIGHT] = fitted.boxes_turned
    account = replace(
        account,
        images_without_labels=without_labels,
        conversions=conversions,
        images_turned=tuple(fitted.turned),
    )
    order = {name: place for place, name in enumerate(records)}
    labelled.sort(key=lambda p: order[p.image.name])
    return MatchResult(tuple(labelled), account, {name: e.name for name, e in entry_of.items()})


def _not_found(entry: ImageAnnotations, fitting: Sequence[str] | None) -> LeftOutImage:
    boxes = len(entry.annotations)
    if not fitting:
        return LeftOutImage(entry.name, boxes, Reason.NO_IMAGE)
    return LeftOutImage(entry.name, boxes, Reason.AMBIGUOUS_IMAGE, detail=", ".join(fitting[:3]))


Chosen = list[tuple[ImageRecord, ImageAnnotations]]


def _one_per_content(
    entry_of: Mapping[str, ImageAnnotations],
    records: Mapping[str, ImageRecord],
    duplicates: Mapping[str, str],
) -> tuple[Chosen, list[LeftOutImage]]:
    """One entry for each image, and the entries of further files with the same content.

    Args:
        entry_of: entry by the name of its image.
        records: images by name.
        duplicates: as for :func:`match_images`.
    """
    entries: dict[str, list[ImageAnnotations]] = defaultdict(list)
    for name in (*records, *duplicates):
        if name in entry_of:
            entries[duplicates.get(name, name)].append(entry_of[name])
    chosen, left_out = [], []
    for name, (first, *others) in entries.items():
        chosen.append((records[name], first))
        for other in others:
            same = set(other.annotations) == set(first.annotations)
            reason = Reason.SAME_CONTENT if same else Reason.SAME_CONTENT_OTHER_BOXES
            left_out.append(LeftOutImage(other.name, len(other.annotations), reason, detail=first.name))
    return chosen, left_out


class _Fitting:
    """Compares the stated size of each entry with its image, and turns boxes upright.

    Attributes:
        turned: names of the images whose boxes were turned.
        boxes_turned: number of their boxes.
    """

    def __init__(self, chosen: Chosen) -> None:
        self._frame = _frame(chosen)
        self.turned: list[str] = []
        self.boxes_turned = 0

    def fit(self, entry: ImageAnnotations, image: ImageRecord) -> LabelledImage | LeftOutImage:
        """The labelled image, or why the entry does not fit it."""
        stated, upright = (entry.width, entry.height), (image.width, image.height)
        if stated == upright:
            if _size_decides(image) or self._frame == "upright":
                return LabelledImage(image, entry.annotations)
            if self._frame == "mixed":
                return LeftOutImage(entry.name, len(entry.annotations), Reason.UNCLEAR_ROTATION)
            return self._turned(entry, image)
        if stated == upright[::-1] and image.orientation in TRANSPOSED:
            return self._turned(entry, image)
        sizes = f"the labels say {stated[0]}x{stated[1]} pixels, upright it has {upright[0]}x{upright[1]}"
        return LeftOutImage(entry.name, len(entry.annotations), Reason.WRONG_SIZE, detail=sizes)

    def _turned(self, entry: ImageAnnotations, image: ImageRecord) -> LabelledImage:
        self.turned.append(entry.name)
        self.boxes_turned += len(entry.annotations)
        size = (entry.width, entry.height)
        annotations = (
            replace(a, box=upright_box(a.box, image.orientation, *size)) for a in entry.annotations
        )
        return LabelledImage(image, tuple(annotations))


def _size_decides(image: ImageRecord) -> bool:
    """Whether the stated size shows if an entry's boxes belong to the upright image."""
    return image.orientation == 1 or (image.orientation in TRANSPOSED and image.width != image.height)


def _frame(chosen: Chosen) -> Frame:
    """Which pixels the boxes belong to where the size of the image does not decide."""
    seen = set()
    for image, entry in chosen:
        if image.orientation in TRANSPOSED and image.width != image.height:
            if (entry.width, entry.height) == (image.width, image.height):
                seen.add("upright")
            elif (entry.width, entry.height) == (image.height, image.width):
                seen.add("stored")
    if len(seen) == 2:
        return "mixed"
    return "stored" if "stored" in seen else "upright"
