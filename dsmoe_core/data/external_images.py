"""Images read where they lie, for judging and for predicting: nothing is taken into a workspace."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from dsmoe_core.data.annotation_set import AnnotationSet
from dsmoe_core.data.decode import decode
from dsmoe_core.data.image_folder import (
    IngestResult,
    QuarantinedFile,
    failure_reason,
    image_files,
    require_regular_file,
)
from dsmoe_core.errors import DataError, ImageError
from dsmoe_core.progress import CountCallback
from dsmoe_core.schema import ImageRecord, LabelledImage

T = TypeVar("T")


class SkippedImage(NamedTuple):
    """An image that cannot be read, with its reason and the number of boxes that are lost with it."""

    name: str
    reason: str
    boxes: int


class ExternalImages(NamedTuple):
    """Annotated images that can be read, and those that cannot; both in the annotations' order."""

    labelled: tuple[LabelledImage, ...]
    skipped: tuple[SkippedImage, ...]


def read_external_images(
    annotations: AnnotationSet,
    images: Path,
    scratch: Path,
    *,
    max_pixels: int,
    progress: CountCallback | None = None,
) -> ExternalImages:
    """Every annotated image below ``images``, read fully once, so that a damaged one is known at once.

    What the network reads is what a workspace would hold: a file that is not upright, or not 8 bit, is
    converted into ``scratch``, which must outlive the images. Their key is their name, as the same image
    may be annotated under two.

    Args:
        max_pixels: larger images are left out.
        progress: called with (images done, images in all).

    Raises:
        DataError: ``images`` is no folder, or no annotated image can be read.
        FormatError: an image has another size than the annotations say.
    """
    if not images.is_dir():
        raise DataError(f"{images} is not a folder; expected a folder of images", "Check the path.")
    readable, skipped = [], []
    for done, entry in enumerate(annotations.images, start=1):
        try:
            readable.append(_image(entry.name, images, scratch / f"{done}.png", max_pixels))
        except (ImageError, PermissionError, FileNotFoundError, NotADirectoryError) as error:
            skipped.append(SkippedImage(entry.name, failure_reason(error), len(entry.annotations)))
        if progress is not None:
            progress(done, len(annotations.images))
    if not readable:
        first = f"; {skipped[0].name}: {skipped[0].reason}" if skipped else ""
        raise DataError(
            f"none of {len(skipped)} annotated images can be read from {images}{first}",
            "Give the folder that the annotations' file names are relative to.",
        )
    return ExternalImages(annotations.match(readable).labelled, tuple(skipped))


def read_external_folder(
    images: Path,
    scratch: Path,
    *,
    max_pixels: int,
    max_images: int | None = None,
    progress: CountCallback | None = None,
) -> IngestResult:
    """The images below ``images`` in the same way, by name; there are no annotations to fit.

    Args:
        max_images: look at no more files than these, evenly from all of the folder.

    Raises:
        DataError: ``images`` is no folder, or no image in it can be read.
    """
    if not images.is_dir():
        raise DataError(f"{images} is not a folder; expected a folder of images", "Check the path.")
    readable, skipped = [], []
    files = evenly_spaced(sorted(image_files(images)), max_images)
    for done, path in enumerate(files, start=1):
        name = path.relative_to(images).as_posix()
        try:
            readable.append(_image(name, images, scratch / f"{done}.png", max_pixels))
        except (ImageError, PermissionError, FileNotFoundError) as error:
            skipped.append(QuarantinedFile(name.encode("utf-8", "replace").decode(), failure_reason(error)))
        if progress is not None:
            progress(done, len(files))
    if not readable:
        first = f"; {skipped[0].name}: {skipped[0].reason}" if skipped else ""
        raise DataError(f"{images} has no image that can be read{first}", "Check the path.")
    return IngestResult(tuple(readable), tuple(skipped))


def evenly_spaced(items: Sequence[T], max_items: int | None) -> list[T]:
    """At max_items so many, spread over the items sequence."""
    count = len(items) if max_items is None else min(max_items, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def _image(name: str, images: Path, converted: Path, max_pixels: int) -> ImageRecord:
    path = images / name
    require_regular_file(path, images)
    decoded = decode(path, max_pixels=max_pixels)
    if decoded.converted is not None:
        decoded.converted.save(converted, format="PNG")
        path = converted
    return ImageRecord(name, name, path, decoded.width, decoded.height)
