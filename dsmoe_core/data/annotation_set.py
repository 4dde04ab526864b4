"""What an annotation file says, whatever its format: classes, image names, sizes and boxes.

The formats (coco, voc, yolo) read into this and write from it. It is strict: one wrong box refuses the whole
file by name, because a file that is wrong in one place is seldom wrong in only one.
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
    """One image as an annotation file knows it.

    Attributes:
        name: path relative to the folder of images, with forward slashes.
        width, height: pixels of the upright image, as the file says.
    """

    name: str
    width: int
    height: int
    annotations: tuple[Annotation, ...]


class MatchResult(NamedTuple):
    """Annotations brought together with images; ``missing`` are annotated names without an image."""

    labelled: tuple[LabelledImage, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AnnotationSet:
    """Everything one annotation file (or folder) says.

    Attributes:
        classes: every class it declares, in its order, used or not.
        notes: what reading left out and why, one sentence each; for people.
    """

    classes: tuple[str, ...]
    images: tuple[ImageAnnotations, ...]
    notes: tuple[str, ...] = ()

    def match(self, images: Iterable[ImageRecord]) -> MatchResult:
        """Brings these annotations together with images of the same name, in the images' order.

        Images without an entry here are left out: they are not labelled, which is not the same as free of
        defects. Boxes belong to the *upright* image: where the size in the file is another one, such as the
        size before an EXIF rotation, the boxes would lie in wrong places, so this refuses.

        Raises:
            FormatError: the file gives an image a size it does not have.
        """
        known = {entry.name: entry for entry in self.images}
        labelled = []
        for image in images:
            entry = known.pop(image.name, None)
            if entry is None:
                continue
            if (entry.width, entry.height) != (image.width, image.height):
                raise _size_mismatch(entry, image)
            labelled.append(LabelledImage(image, entry.annotations))
        return MatchResult(tuple(labelled), tuple(known))


def _size_mismatch(entry: ImageAnnotations, image: ImageRecord) -> FormatError:
    problem = (
        f"the annotations give {image.name} a size of {entry.width}x{entry.height} pixels, "
        f"but upright it has {image.width}x{image.height}"
    )
    if (entry.width, entry.height) == (image.height, image.width):
        return FormatError(
            f"{problem}: they were made on the image before its EXIF rotation",
            "Turn the image upright in its file (and drop the EXIF tag), or annotate it upright.",
        )
    return FormatError(problem, "Annotate the images at the size they are given in.")


def checked_name(raw: object, source: Path, owner: str) -> str:
    """An image's name as its relative path with forward slashes.

    Args:
        raw: what the file says; Windows' backslashes are taken as slashes.
        source: the annotation file, for the message.
        owner: which entry of it, for the message.

    Raises:
        FormatError: no text, empty, absolute, with a drive or control characters, or leading out by ``..``.
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
    """Width and height as positive whole numbers.

    Raises:
        FormatError: they are not.
    """
    values = []
    for label, value in (("width", width), ("height", height)):
        whole = isinstance(value, int | float) and not isinstance(value, bool) and value == whole_part(value)
        if not whole or whole_part(value) < 1:
            raise FormatError(
                f"{source}: {owner} has {label} {value!r}; expected a whole number of pixels above 0",
                "Write the image's size into the file.",
            )
        values.append(whole_part(value))
    return values[0], values[1]


def whole_part(value: object) -> int:
    """The whole part of a finite number, 0 for everything else."""
    if not isinstance(value, int | float):
        return 0
    try:
        return int(value)
    except (OverflowError, ValueError):  # infinite, or not a number
        return 0


def checked_box(
    corners: tuple[float, float, float, float], size: tuple[int, int], source: Path, owner: str
) -> Box:
    """The box of these corners (x1, y1, x2, y2 in pixels), clipped where it sticks out by rounding only.

    Args:
        size: width and height of the image.
        owner: names image and annotation, for the message.

    Raises:
        BoxError: it is empty, not finite or more than a pixel outside; names file, image and annotation.
    """
    remedy = "Correct or remove this box, or check that file and images belong together."
    try:
        box = Box(*corners)
    except BoxError as error:
        raise BoxError(f"{source}: {owner}: {error.problem}", remedy) from None
    shown = tuple(round(v, 2) for v in box.corners)
    outside = BoxError(
        f"{source}: {owner}: box {shown} lies outside its image of {size[0]}x{size[1]} pixels", remedy
    )
    if not box.inside(*size):
        raise outside
    try:
        return box.clipped(*size)
    except BoxError:
        raise outside from None


def refuse_duplicates(names: Iterable[str], what: str, source: Path) -> None:
    """Raises FormatError at the first value that comes twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise FormatError(
                f"{source}: {what} {name!r} comes twice; expected every {what} once", "Remove one of the two."
            )
        seen.add(name)
