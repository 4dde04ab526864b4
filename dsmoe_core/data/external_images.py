"""Readers for images outside a workspace, for evaluation and prediction. The source folder is not changed."""

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
    """An image that cannot be read, the reason, and the number of annotated boxes on it."""

    name: str
    reason: str
    boxes: int


class ExternalImages(NamedTuple):
    """Annotated images that can be read and those that cannot; both in the order of the annotations."""

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
    """Decode every annotated image below ``images`` once, so that damaged ones are known at the start.

    The pixels are the same as after ingest into a workspace: a file that is not upright or not 8 bit is
    converted into ``scratch``. The key of an image is its name, since the same content may be annotated under
    two names.

    Args:
        annotations: entries with names relative to ``images``.
        scratch: folder for converted images; it must exist as long as the images are used.
        max_pixels: larger images are skipped.
        progress: called with (images done, images in total).

    Raises:
        DataError: ``images`` is not a folder, or no annotated image can be read.
        FormatError: an image has another size than the annotations state.
    """
    _require_folder(images)
    readable, skipped = [], []
    for done, entry in enumerate(annotations.images, start=1):
        try:
            readable.append(_image(entry.name, images, scratch / f"{done}.png", max_pixels))
        except (ImageError, PermissionError, FileNotFoundError, NotADirectoryError) as error:
            skipped.append(SkippedImage(entry.name, failure_reason(error), len(entry.annotations)))
        if progress is not None:
            progress(done, len(annotations.images))
    if not readable:
        raise DataError(
            f"none of {len(skipped)} annotated images can be read from {images}{_first_reason(skipped)}",
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
    """Decode the images below ``images`` like :func:`read_external_images`, but without annotations.

    Args:
        scratch: folder for converted images; it must exist as long as the images are used.
        max_pixels: larger images are left out.
        max_images: largest number of files to read, evenly spaced over the whole folder; None: all.
        progress: called with (images done, images in total).

    Raises:
        DataError: ``images`` is not a folder, or no image in it can be read.
    """
    _require_folder(images)
    readable, quarantined = [], []
    files = evenly_spaced(sorted(image_files(images)), max_images)
    for done, path in enumerate(files, start=1):
        name = path.relative_to(images).as_posix()
        try:
            readable.append(_image(name, images, scratch / f"{done}.png", max_pixels))
        except (ImageError, PermissionError, FileNotFoundError) as error:
            quarantined.append(QuarantinedFile.of(name, error))
        if progress is not None:
            progress(done, len(files))
    if not readable:
        raise DataError(
            f"{images} has no image that can be read{_first_reason(quarantined)}", "Check the path."
        )
    return IngestResult(tuple(readable), tuple(quarantined))


def evenly_spaced(items: Sequence[T], max_items: int | None) -> list[T]:
    """At most ``max_items`` items (None: all), at even distances over the whole sequence."""
    count = len(items) if max_items is None else min(max_items, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def _require_folder(images: Path) -> None:
    if not images.is_dir():
        raise DataError(f"{images} is not a folder; expected a folder of images", "Check the path.")


def _first_reason(failures: Sequence[SkippedImage | QuarantinedFile]) -> str:
    return f"; {failures[0].name}: {failures[0].reason}" if failures else ""


def _image(name: str, images: Path, converted: Path, max_pixels: int) -> ImageRecord:
    path = images / name
    require_regular_file(path, images)
    decoded = decode(path, max_pixels=max_pixels)
    if decoded.converted is not None:
        decoded.converted.save(converted, format="PNG")
        path = converted
    return ImageRecord(name, name, path, decoded.width, decoded.height)
