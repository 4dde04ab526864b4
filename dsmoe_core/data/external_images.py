"""Readers for images outside a workspace, for evaluation and prediction. The source folder is not changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeVar

from dsmoe_core.data.annotation_set import AnnotationSet
from dsmoe_core.data.decode import decode, intensity_range
from dsmoe_core.data.deep_pixels import FULL_RANGE
from dsmoe_core.data.image_folder import (
    IngestResult,
    QuarantinedFile,
    choose_scale,
    image_files,
    require_regular_file,
)
from dsmoe_core.data.image_formats import image_suffixes
from dsmoe_core.data.image_matching import match_images
from dsmoe_core.data.import_account import ImportAccount, Kind
from dsmoe_core.data.intensity_scale import IntensityRange, IntensityScale
from dsmoe_core.data.name_match import match_names
from dsmoe_core.digest import sha256_of
from dsmoe_core.errors import DataError, ImageError
from dsmoe_core.progress import CountCallback
from dsmoe_core.schema import ImageRecord, LabelledImage

T = TypeVar("T")


class SkippedImage(NamedTuple):
    """An image that is annotated and cannot be used, the reason, and the number of its boxes."""

    name: str
    reason: str
    boxes: int


class ExternalImages(NamedTuple):
    """Annotated images that can be read and those that cannot; both in the order of the annotations.

    Attributes:
        scale: intensity scale of the images with more than 8 bits per channel; None if there are none.
        clipped: names of the images with values above that scale's maximum.
        account: that of the annotations, with the skipped images.
    """

    labelled: tuple[LabelledImage, ...]
    skipped: tuple[SkippedImage, ...]
    account: ImportAccount = ImportAccount()
    scale: IntensityScale | None = None
    clipped: tuple[str, ...] = ()


def read_external_images(
    annotations: AnnotationSet,
    images: Path,
    scratch: Path,
    *,
    max_pixels: int,
    intensity_max: int | None = None,
    progress: CountCallback | None = None,
) -> ExternalImages:
    """Decode every annotated image below ``images`` once, so that damaged ones are known at the start.

    The pixels are the same as after ingest into a workspace: a file that is not upright or not 8 bit is
    converted into ``scratch``. The key of an image is its name, since the same content may be annotated under
    two names. Annotated names are matched with the files of the folder, and never opened as paths.

    Args:
        annotations: entries with names relative to ``images``, or others that ``name_match.py`` can match.
        scratch: folder for converted images; it must exist as long as the images are used.
        max_pixels: larger images are skipped.
        intensity_max: value of images with more than 8 bits that becomes white; None: chosen from the images.
        progress: called with (images done, images in total).

    Raises:
        DataError: ``images`` is not a folder, or no annotated image can be used.
    """
    _require_folder(images)
    report = progress or (lambda _done, _total: None)
    files = [path.relative_to(images).as_posix() for path in sorted(image_files(images))]
    matched = match_names((e.name for e in annotations.images), files, images).matched
    names = [matched[e.name] for e in annotations.images if e.name in matched]
    reader = _Reader(images, scratch, max_pixels)
    scale = reader.choose_scale(names, intensity_max, report)
    for done, name in enumerate(names, start=1):
        reader.read(name)
        report(done, len(names))
    match = match_images(annotations, reader.readable, unreadable=reader.unreadable(files), folder=images)
    used, suffixes = set(names), image_suffixes()
    unlisted = tuple(f for f in files if f not in used and PurePosixPath(f).suffix.lower() in suffixes)
    account = replace(match.account, images_without_labels=unlisted)
    account = account.with_notes(*_conflicts(match.labelled, images))
    skipped = tuple(_skipped(account, annotations))
    if not match.labelled:
        raise DataError(
            f"none of {len(annotations.images)} annotated images can be used from {images}"
            f"{_first_reason(skipped)}",
            "Give the folder that the annotations' file names are relative to.",
        )
    return ExternalImages(match.labelled, skipped, account, scale, tuple(reader.clipped))


def _conflicts(labelled: Sequence[LabelledImage], images: Path) -> Iterator[str]:
    """A sentence for each image with the same content as one before, but other boxes."""
    by_size: dict[int, list[LabelledImage]] = defaultdict(list)
    for item in labelled:
        by_size[(images / item.image.name).stat().st_size].append(item)
    for same_size in by_size.values():
        first: dict[str, LabelledImage] = {}
        for item in same_size if len(same_size) > 1 else ():
            other = first.setdefault(sha256_of(images / item.image.name), item)
            if set(other.annotations) != set(item.annotations):
                names = f"{other.image.name} and {item.image.name}"
                yield f"{names} have the same content and different boxes; both are taken"


def _skipped(account: ImportAccount, annotations: AnnotationSet) -> Iterator[SkippedImage]:
    """The images that were left out after the labels were read."""
    before = len([e for e in annotations.account.entries if e.kind is Kind.IMAGE])
    left_out = [e for e in account.entries if e.kind is Kind.IMAGE][before:]
    place = {entry.name: number for number, entry in enumerate(annotations.images)}
    for entry in sorted(left_out, key=lambda e: place[e.image]):
        detail = f": {entry.detail}" if entry.detail else ""
        yield SkippedImage(entry.image, f"{entry.reason}{detail}", entry.boxes)


def read_external_folder(
    images: Path,
    scratch: Path,
    *,
    max_pixels: int,
    max_images: int | None = None,
    intensity_max: int | None = None,
    progress: CountCallback | None = None,
) -> IngestResult:
    """Decode the images below ``images`` like :func:`read_external_images`, but without annotations.

    Args:
        scratch: folder for converted images; it must exist as long as the images are used.
        max_pixels: larger images are left out.
        max_images: largest number of files to read, evenly spaced over the whole folder; None: all.
        intensity_max: value of images with more than 8 bits that becomes white; None: chosen from the images.
        progress: called with (images done, images in total).

    Raises:
        DataError: ``images`` is not a folder, or no image in it can be read.
    """
    _require_folder(images)
    report = progress or (lambda _done, _total: None)
    files = evenly_spaced(sorted(image_files(images)), max_images)
    names = [path.relative_to(images).as_posix() for path in files]
    reader = _Reader(images, scratch, max_pixels)
    scale = reader.choose_scale(names, intensity_max, report)
    for done, name in enumerate(names, start=1):
        reader.read(name)
        report(done, len(files))
    if not reader.readable:
        raise DataError(
            f"{images} has no image that can be read{_first_reason(reader.quarantined)}", "Check the path."
        )
    return IngestResult(
        tuple(reader.readable),
        tuple(reader.quarantined),
        scale=scale,
        clipped=tuple(reader.clipped),
        frames=reader.frames,
    )


class _Reader:
    """Decodes the images of a folder, one by one.

    Attributes:
        readable: images that were read.
        quarantined: files that cannot be used.
        clipped: names of images with values above the scale's maximum.
        frames: number of frames of the files that have several.
    """

    def __init__(self, images: Path, scratch: Path, max_pixels: int) -> None:
        self._images = images
        self._scratch = scratch
        self._max_pixels = max_pixels
        self._intensity_max = FULL_RANGE
        self.readable: list[ImageRecord] = []
        self.quarantined: list[QuarantinedFile] = []
        self.clipped: list[str] = []
        self.frames: dict[str, int] = {}

    def choose_scale(
        self, names: Sequence[str], intensity_max: int | None, progress: CountCallback
    ) -> IntensityScale | None:
        """Choose the intensity scale of the images that :meth:`read` reads afterwards."""

        def read_range(path: Path) -> IntensityRange | None:
            require_regular_file(path, self._images)
            return intensity_range(path, max_pixels=self._max_pixels)

        scale = choose_scale([self._images / name for name in names], intensity_max, read_range, progress)
        if scale is not None:
            self._intensity_max = scale.intensity_max
        return scale

    def read(self, name: str) -> None:
        """Decode one image."""
        path = self._images / name
        try:
            require_regular_file(path, self._images)
            decoded = decode(path, max_pixels=self._max_pixels, intensity_max=self._intensity_max)
        except (ImageError, PermissionError, FileNotFoundError) as error:
            self.quarantined.append(QuarantinedFile.of(name, error))
            return
        if decoded.converted is not None:
            path = self._scratch / f"{len(self.readable) + 1}.png"
            decoded.converted.save(path, format="PNG")
        size = (decoded.width, decoded.height)
        self.readable.append(ImageRecord(name, name, path, *size, orientation=decoded.orientation))
        if decoded.range is not None and decoded.range.brightest > self._intensity_max:
            self.clipped.append(name)
        if decoded.frames > 1:
            self.frames[name] = decoded.frames

    def unreadable(self, files: Iterable[str]) -> dict[str, str]:
        """Reason by name of the files that were not read; empty for those that no annotation names."""
        reasons = {q.name: q.reason for q in self.quarantined}
        read = {image.name for image in self.readable}
        return {name: reasons.get(name, "") for name in files if name not in read}


def evenly_spaced(items: Sequence[T], max_items: int | None) -> list[T]:
    """At most ``max_items`` items (None: all), at even distances over the whole sequence."""
    count = len(items) if max_items is None else min(max_items, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def _require_folder(images: Path) -> None:
    if not images.is_dir():
        raise DataError(f"{images} is not a folder; expected a folder of images", "Check the path.")


def _first_reason(failures: Sequence[SkippedImage | QuarantinedFile]) -> str:
    return f"; {failures[0].name}: {failures[0].reason}" if failures else ""
