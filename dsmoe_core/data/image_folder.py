"""Ingest of a folder of images into a store; files that cannot be used are quarantined with a reason.

A second run over the same folder is fast: an index in the store maps each file (by size and modification
time) to its key, so only new and changed files are read. Quarantined files are tried again on every run.

Images with more than 8 bits are read twice: once for the intensity scale that all of them get.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from dsmoe_core.atomic import atomic_write
from dsmoe_core.data.decode import decode, intensity_range
from dsmoe_core.data.deep_pixels import FULL_RANGE
from dsmoe_core.data.formats import label_suffixes
from dsmoe_core.data.intensity_scale import IntensityRange, IntensityScale
from dsmoe_core.digest import sha256_of
from dsmoe_core.errors import DISK_FULL_ERRNOS, DataError, ImageError, PrerequisiteError
from dsmoe_core.progress import CountCallback
from dsmoe_core.schema import ImageRecord

_INDEX = ".ingested.json"
_DATA_SET_SUFFIXES = (".yaml", ".yml", ".names", ".data", ".md")
"""Of files that describe an exported data set."""


class QuarantinedFile(NamedTuple):
    """A file that was left out.

    Attributes:
        name: relative to the folder; characters that UTF-8 cannot encode are replaced.
        reason: a sentence for people.
    """

    name: str
    reason: str

    @classmethod
    def of(cls, name: str, error: ImageError | OSError) -> QuarantinedFile:
        """The file of this name, left out because of this error."""
        return cls(name.encode("utf-8", "replace").decode(), failure_reason(error))


@dataclass(frozen=True, slots=True)
class IngestResult:
    """Images of a folder that are ready to use, and files that were left out; both ordered by name.

    Attributes:
        duplicates: names of files with the same content as an image, which are in ``quarantined`` too, and
            the name of that image.
        scale: intensity scale of the images with more than 8 bits per channel; None if there are none.
        clipped: names of the images with values above that scale's maximum.
        frames: number of frames or pages of the files that have several; the first was read.
    """

    images: tuple[ImageRecord, ...]
    quarantined: tuple[QuarantinedFile, ...]
    duplicates: Mapping[str, str] = field(default_factory=dict)
    scale: IntensityScale | None = None
    clipped: tuple[str, ...] = ()
    frames: Mapping[str, int] = field(default_factory=dict)

    @property
    def unreadable(self) -> dict[str, str]:
        """Reason by name of the files that cannot be used, without duplicates."""
        return {q.name: q.reason for q in self.quarantined if q.name not in self.duplicates}

    def account(self) -> dict[str, Any]:
        """What was in the folder and what of it is used, as a dictionary that JSON can hold."""
        scale = self.scale
        return {
            "files": len(self.images) + len(self.quarantined),
            "images": len(self.images),
            "unreadable": self.unreadable,
            "duplicates": dict(self.duplicates),
            "several_frames": dict(self.frames),
            "intensity_scale": None if scale is None else {**scale._asdict(), "text": str(scale)},
            "clipped": list(self.clipped),
        }


@dataclass(frozen=True, slots=True)
class _IndexEntry:
    """State of a source file when it was last read; valid while size and modification time are unchanged.

    Attributes:
        range: of the values of an image with more than 8 bits; None for others.
        intensity_max: of the scale that it was stored with; None for an image of 8 bits.
    """

    size: int
    changed_ns: int
    key: str
    file: str
    width: int
    height: int
    orientation: int = 1
    frames: int = 1
    range: IntensityRange | None = None
    intensity_max: int | None = None

    @classmethod
    def of_json(cls, values: dict[str, Any]) -> _IndexEntry:
        """Inverse of ``asdict``, as JSON holds it."""
        extent = values.pop("range")
        return cls(**values, range=None if extent is None else IntensityRange(*extent))

    def is_current(self, status: os.stat_result) -> bool:
        """Whether the file is unchanged."""
        return (self.size, self.changed_ns) == (status.st_size, status.st_mtime_ns)


def ingest_folder(
    images: Path,
    store: Path,
    *,
    max_pixels: int,
    intensity_max: int | None = None,
    progress: CountCallback | None = None,
) -> IngestResult:
    """Store every image below ``images`` in ``store`` as KEY.jpg or KEY.png, upright and 8 bit.

    The key is the sha256 of the original bytes. A file that every browser shows correctly is stored unchanged
    (as a hard link where the disk allows it, so images must not be edited in place); any other is converted
    to an 8-bit RGB PNG. Hidden files and linked folders are ignored. An interrupted run continues when called
    again.

    Args:
        max_pixels: larger images are refused by their header, before they are decoded.
        intensity_max: value that becomes white in images with more than 8 bits; None: chosen from them.
        progress: called with (files done, files in total), before that with the images of more than 8 bits.

    Raises:
        DataError: ``images`` is not a folder.
        PrerequisiteError: the disk is full.
    """
    if not images.is_dir():
        raise DataError(f"{images} is not a folder; expected a folder of images", "Check the path.")
    try:
        store.mkdir(parents=True, exist_ok=True)
        return _ingest(images, store, max_pixels, intensity_max, progress or (lambda _done, _total: None))
    except OSError as error:
        if error.errno not in DISK_FULL_ERRNOS:
            raise
        raise PrerequisiteError(
            f"the disk of {store} is full", "Free some space, then run the same command again."
        ) from None


def _ingest(
    images: Path, store: Path, max_pixels: int, intensity_max: int | None, progress: CountCallback
) -> IngestResult:
    index = _load_index(store)
    entries: dict[str, _IndexEntry] = {}
    first_name: dict[str, str] = {}
    duplicates: dict[str, str] = {}
    quarantined: list[QuarantinedFile] = []
    files = sorted(image_files(images))
    try:
        scale = choose_scale(
            files, intensity_max, lambda path: _known_range(path, index, images, max_pixels), progress
        )
        full = scale.intensity_max if scale is not None else FULL_RANGE
        for done, path in enumerate(files, start=1):
            name = path.relative_to(images).as_posix()
            try:
                entry = _stored(path, images, store, max_pixels, full, index)
                if entry.key in first_name:
                    duplicates[name] = first_name[entry.key]
                    raise ImageError(f"same content as {first_name[entry.key]}", "Keep one of the two.")  # noqa: TRY301
            except (ImageError, PermissionError, FileNotFoundError) as error:
                quarantined.append(QuarantinedFile.of(name, error))
            else:
                first_name[entry.key] = name
                entries[name] = entry
            progress(done, len(files))
    finally:
        _save_index(store, index)
    return IngestResult(
        images=tuple(
            ImageRecord(e.key, name, store / e.file, e.width, e.height, orientation=e.orientation)
            for name, e in entries.items()
        ),
        quarantined=tuple(quarantined),
        duplicates=duplicates,
        scale=scale,
        clipped=tuple(n for n, e in entries.items() if e.range is not None and e.range.brightest > full),
        frames={name: e.frames for name, e in entries.items() if e.frames > 1},
    )


def choose_scale(
    files: Sequence[Path],
    intensity_max: int | None,
    read_range: Callable[[Path], IntensityRange | None],
    progress: CountCallback,
) -> IntensityScale | None:
    """The intensity scale of the images with more than 8 bits; files that cannot be read are passed over.

    Args:
        intensity_max: value to use; None: choose it from the images.
        read_range: range of an image; None for one of 8 bits.
        progress: called with (files examined, files in total), from the first image of more than 8 bits on.
    """
    ranges: list[IntensityRange] = []
    for done, path in enumerate(files, start=1):
        try:
            extent = read_range(path)
        except (ImageError, OSError):
            continue
        if extent is not None:
            ranges.append(extent)
        if ranges:
            progress(done, len(files))
    return IntensityScale.of(ranges, intensity_max)


def _known_range(
    path: Path, index: Mapping[str, _IndexEntry], images: Path, max_pixels: int
) -> IntensityRange | None:
    """The range of an image's values, from the index if the file is unchanged."""
    require_regular_file(path, images)
    entry = index.get(str(path.resolve()))
    if entry is not None and entry.is_current(path.stat()):
        return entry.range
    return intensity_range(path, max_pixels=max_pixels)


def image_files(images: Path) -> Iterator[Path]:
    """All files that could be images: not hidden, not in a linked folder, not a part of the labels."""
    suffixes = (*label_suffixes(), *_DATA_SET_SUFFIXES)
    for folder, folders, names in os.walk(images, followlinks=False):
        folders[:] = [f for f in folders if not f.startswith(".")]
        for name in names:
            if not name.startswith(".") and not name.lower().endswith(suffixes):
                yield Path(folder) / name


def failure_reason(error: ImageError | OSError) -> str:
    """Why an image was left out, as a sentence for people."""
    return error.problem if isinstance(error, ImageError) else f"it cannot be read: {error.strerror}"


def _stored(
    path: Path, images: Path, store: Path, max_pixels: int, intensity_max: int, index: dict[str, _IndexEntry]
) -> _IndexEntry:
    """The index entry of an image, which is in the store afterwards.

    Args:
        intensity_max: of the scale; an image that is stored with another one is stored again.

    Raises:
        ImageError: it cannot be used.
        OSError: it cannot be read or written.
    """
    require_regular_file(path, images)
    source = str(path.resolve())
    status = path.stat()
    entry = index.get(source)
    if (
        entry is not None
        and entry.is_current(status)
        and entry.intensity_max in (None, intensity_max)
        and entry.width * entry.height <= max_pixels
        and (store / entry.file).is_file()
    ):
        return entry
    decoded = decode(path, max_pixels=max_pixels, intensity_max=intensity_max)
    key = sha256_of(path)
    target = store / f"{key}{decoded.suffix}"
    if not target.is_file() or decoded.range is not None:
        draft = store / f".{key}.draft"
        draft.unlink(missing_ok=True)
        try:
            if decoded.converted is None:
                _link_or_copy(path, draft)
            else:
                decoded.converted.save(draft, format="PNG")
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
    entry = _IndexEntry(
        size=status.st_size,
        changed_ns=status.st_mtime_ns,
        key=key,
        file=target.name,
        width=decoded.width,
        height=decoded.height,
        orientation=decoded.orientation,
        frames=decoded.frames,
        range=decoded.range,
        intensity_max=None if decoded.range is None else intensity_max,
    )
    index[source] = entry
    return entry


def require_regular_file(path: Path, images: Path) -> None:
    """Require a regular file inside its folder whose name is valid UTF-8.

    Raises:
        ImageError: it is something else.
        OSError: it does not exist, or access is denied.
    """
    try:
        str(path.relative_to(images)).encode("utf-8")
    except UnicodeEncodeError:
        raise ImageError("its name is not UTF-8", "Rename it.") from None
    except ValueError:
        raise ImageError("its name leaves the folder", "Copy the image into the folder.") from None
    if not path.resolve().is_relative_to(images.resolve()):
        raise ImageError("it is a link that leaves the folder", "Copy the image into the folder.")
    if not stat.S_ISREG(path.stat().st_mode):
        raise ImageError("it is not a regular file", "Remove it.")


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise
        shutil.copyfile(source, target)  # another disk, or one without hard links


def _load_index(store: Path) -> dict[str, _IndexEntry]:
    """The index of earlier runs by resolved path; empty where it is missing or damaged."""
    try:
        raw: dict[str, dict[str, Any]] = json.loads((store / _INDEX).read_bytes())
        return {source: _IndexEntry.of_json(entry) for source, entry in raw.items()}
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return {}


def _save_index(store: Path, index: dict[str, _IndexEntry]) -> None:
    atomic_write(store / _INDEX, json.dumps({source: asdict(entry) for source, entry in index.items()}))
