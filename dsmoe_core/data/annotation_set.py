"""The content of annotation files, independent of their format: classes, image names, sizes and boxes.

The label formats (coco, voc, yolo) read into this and write from it. Reading takes what it can: one wrong
entry does not stop the others, and the account of the set names everything that was not taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from dsmoe_core.data.import_account import ImportAccount, LeftOutImage, Reason, Unlabelled
from dsmoe_core.errors import FormatError
from dsmoe_core.schema import Annotation


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
