"""The content of an annotation file, independent of its format: classes, image names, sizes and boxes.

The label formats (coco, voc, yolo) read into this and write from it. Reading is strict: one wrong box refuses
the whole file, because a file that is wrong in one place usually is wrong in more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from dsmoe_core.errors import BoxError, FormatError
from dsmoe_core.schema import Annotation, Box, ImageRecord, LabelledImage


@dataclass(frozen=True, slots=True)
class ImageAnnotations:
    """The entry of one image in an annotation file.

    Attributes:
        name: path relative to the folder of images, with forward slashes.
        width, height: size of the upright image in pixels, as stated in the file.
    """

    name: str
    width: int
    height: int
    annotations: tuple[Annotation, ...]


class MatchResult(NamedTuple):
    """Images with their annotations, and the annotated names for which there is no image."""

    labelled: tuple[LabelledImage, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AnnotationSet:
    """The content of one annotation file or folder.

    Attributes:
        classes: every class that is declared, in the order of the file, used or not.
        notes: one sentence for each thing that reading left out, with the reason.
    """

    classes: tuple[str, ...]
    images: tuple[ImageAnnotations, ...]
    notes: tuple[str, ...] = ()

    def match(self, images: Iterable[ImageRecord]) -> MatchResult:
        """Pair the annotations with images of the same name, in the order of the images.

        Images without an entry are left out: they are unlabelled, which differs from free of defects. Boxes
        refer to the *upright* image, so a different size in the file (such as the size before EXIF rotation)
        is an error.

        Raises:
            FormatError: the file states a size that the image does not have.
        """
        unmatched = {entry.name: entry for entry in self.images}
        labelled = []
        for image in images:
            entry = unmatched.pop(image.name, None)
            if entry is None:
                continue
            if (entry.width, entry.height) != (image.width, image.height):
                raise _size_mismatch(entry, image)
            labelled.append(LabelledImage(image, entry.annotations))
        return MatchResult(tuple(labelled), tuple(unmatched))


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


def checked_name(raw: object, source: Path, owner: str) -> str:
    """Validate an image name and return it as a relative path with forward slashes.

    Args:
        raw: the value in the file; backslashes are taken as slashes.
        source: the annotation file, for the message.
        owner: the entry of the file, for the message.

    Raises:
        FormatError: it is not text, empty, absolute, with a drive or control characters, or contains ``..``.
    """
    remedy = "Give file names relative to the folder of images, without '..'."
    if not isinstance(raw, str) or not raw.strip():
        raise FormatError(f"{source}: {owner} has file name {raw!r}; expected a relative path", remedy)
    path = PurePosixPath(raw.replace("\\", "/"))
    parts = path.parts
    if path.is_absolute() or ".." in parts or not parts or parts[0].endswith(":"):
        raise FormatError(f"{source}: {owner} has file name {raw!r}, which leaves the folder", remedy)
    if any(not character.isprintable() for character in raw):
        raise FormatError(f"{source}: {owner} has file name {raw!r} with control characters", remedy)
    return str(path)


def checked_size(width: object, height: object, source: Path, owner: str) -> tuple[int, int]:
    """Validate an image size and return it as positive integers.

    Args:
        source: the annotation file, for the message.
        owner: the entry of the file, for the message.

    Raises:
        FormatError: a value is not a whole number above 0.
    """
    values = []
    for label, value in (("width", width), ("height", height)):
        is_whole = (
            isinstance(value, int | float) and not isinstance(value, bool) and value == _whole_part(value)
        )
        if not is_whole or _whole_part(value) < 1:
            raise FormatError(
                f"{source}: {owner} has {label} {value!r}; expected a whole number of pixels above 0",
                "Write the image's size into the file.",
            )
        values.append(_whole_part(value))
    return values[0], values[1]


def _whole_part(value: object) -> int:
    """The integer part of a finite number, 0 for everything else."""
    if not isinstance(value, int | float):
        return 0
    try:
        return int(value)
    except (OverflowError, ValueError):  # infinite or NaN
        return 0


def checked_box(
    corners: tuple[float, float, float, float], size: tuple[int, int], source: Path, owner: str
) -> Box:
    """Validate a box, and clip it where it leaves its image by a rounding error.

    Args:
        corners: x1, y1, x2, y2 in pixels.
        size: width and height of the image.
        source: the annotation file, for the message.
        owner: image and annotation, for the message.

    Raises:
        BoxError: it is empty, not finite or more than a pixel outside; names file, image and annotation.
    """
    remedy = "Correct or remove this box, or check that file and images belong together."
    try:
        box = Box(*corners)
    except BoxError as error:
        raise BoxError(f"{source}: {owner}: {error.problem}", remedy) from None
    rounded = tuple(round(v, 2) for v in box.corners)
    outside = BoxError(
        f"{source}: {owner}: box {rounded} lies outside its image of {size[0]}x{size[1]} pixels", remedy
    )
    if not box.inside(*size):
        raise outside
    try:
        return box.clipped(*size)
    except BoxError:
        raise outside from None


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
