"""The content of annotation files, independent of their format: classes, image names, sizes and boxes.

The label formats (coco, voc, yolo) read into this and write from it. Reading takes what it can: one wrong
entry does not stop the others, and the account of the set names everything that was not taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from dsmoe_core.data.import_account import ImportAccount, LeftOutImage, Reason, Unlabelled
from dsmoe_core.errors import FormatError
from dsmoe_core.schema import Annotation, ImageRecord, LabelledImage


@dataclass(frozen=True, slots=True)
class ImageAnnotations:
    """The entry of one image in an annotation file.

    Attributes:
        name: as the file states it, with forward slashes; usually relative to the folder of images.
        width, height: size of the upright image in pixels, as stated in the file.
    """

    name: str
    width: int
    height: int
    annotations: tuple[Annotation, ...]


class MatchResult(NamedTuple):
    """Images with their annotations, the annotated names without an image, and the account with both."""

    labelled: tuple[LabelledImage, ...]
    missing: tuple[str, ...]
    account: ImportAccount


@dataclass(frozen=True, slots=True)
class AnnotationSet:
    """The content of one annotation file or folder.

    Attributes:
        classes: every class that is declared, in the order of the file, used or not.
        account: what was in the files, and what of it was not taken.
        states_negatives: the files state that their images without a box are free of defects.
    """

    classes: tuple[str, ...]
    images: tuple[ImageAnnotations, ...]
    account: ImportAccount = field(default_factory=ImportAccount)
    states_negatives: bool = False

    @property
    def images_without_box(self) -> tuple[ImageAnnotations, ...]:
        """The images that have no box."""
        return tuple(entry for entry in self.images if not entry.annotations)

    def counting_unlabelled(self, unlabelled: Unlabelled) -> AnnotationSet:
        """The set with a decision about its images without a box.

        Args:
            unlabelled: keep them as free of defects, or leave them out as not labelled.
        """
        account = replace(self.account, unlabelled=unlabelled)
        if unlabelled is Unlabelled.NEGATIVE:
            return replace(self, account=account)
        dropped = [LeftOutImage(entry.name, 0, Reason.UNLABELLED) for entry in self.images_without_box]
        images = tuple(entry for entry in self.images if entry.annotations)
        return replace(self, images=images, account=account.without_images(dropped))

    def match(self, images: Iterable[ImageRecord]) -> MatchResult:
        """Pair the annotations with images of the same name, in the order of the images.

        Images without an entry are left out: they are unlabelled, which differs from free of defects. Boxes
        refer to the *upright* image, so a different size in the file (such as the size before EXIF rotation)
        is an error.

        Raises:
            FormatError: the file states a size that the image does not have.
        """
        unmatched = {entry.name: entry for entry in self.images}
        labelled, unlisted = [], []
        for image in images:
            entry = unmatched.pop(image.name, None)
            if entry is None:
                unlisted.append(image.name)
                continue
            if (entry.width, entry.height) != (image.width, image.height):
                raise _size_mismatch(entry, image)
            labelled.append(LabelledImage(image, entry.annotations))
        missing = [LeftOutImage(e.name, len(e.annotations), Reason.NO_IMAGE) for e in unmatched.values()]
        account = replace(self.account.without_images(missing), images_without_labels=tuple(unlisted))
        return MatchResult(tuple(labelled), tuple(unmatched), account)


def _size_mismatch(entry: ImageAnnotations, image: ImageRecord) -> FormatError:
    problem = (
        f"the annotations give {image.name} a size of {entry.width}x{entry.height} pixels, "
        f"but upright it has {image.width}x{image.height}"
    )
    if (entry.width, entry.height) == (image.height, image.width):
        return FormatError(
            f"{problem}: they were made before the image's EXIF rotation",
            "Rotate the image file itself and remove the EXIF tag, or annotate the upright image.",
        )
    return FormatError(problem, "Give the images that were annotated, at their original size.")


def refuse_duplicates(values: Iterable[str], what: str, source: Path) -> None:
    """Require that no value occurs twice.

    Args:
        what: the kind of value, for the message.
        source: the annotation file, for the message.

    Raises:
        FormatError: a value occurs twice; names the first one.
    """
    earlier: set[str] = set()
    for value in values:
        if value in earlier:
            raise FormatError(
                f"{source}: {what} {value!r} occurs twice; expected every {what} once",
                "Remove or rename one of the two.",
            )
        earlier.add(value)
