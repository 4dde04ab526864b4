"""Takes a folder of images into a store, once each; what cannot be used goes to quarantine with its reason.

A second run over the same folder is fast: the store remembers which file (by size and time of change) holds
which key, so that only new and changed files are read. What was quarantined is looked at again each time.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dsmoe_core.atomic import atomic_write
from dsmoe_core.data.decode import decode
from dsmoe_core.digest import sha256_of
from dsmoe_core.errors import DISK_FULL_ERRNOS, DataError, ImageError, PrerequisiteError
from dsmoe_core.progress import CountCallback
from dsmoe_core.schema import ImageRecord

_INDEX = ".ingested.json"
_LABELS = (".txt", ".xml", ".json")  # a label file beside its image is no image gone wrong


class QuarantinedFile(NamedTuple):
    """A file that was left out; ``name`` is relative to the folder, ``reason`` a sentence for people."""

    name: str
    reason: str


class IngestResult(NamedTuple):
    """What a folder held: images ready to use, and what was left out; both in order of name."""

    images: tuple[ImageRecord, ...]
    quarantined: tuple[QuarantinedFile, ...]


@dataclass(frozen=True, slots=True)
class _Seen:
    """A file as it was when last read: if size and time are the same, so is the rest."""

    size: int
    changed_ns: int
    key: str
    file: str
    width: int
    height: int


def ingest_folder(
    images: Path, store: Path, *, max_pixels: int, progress: CountCallback | None = None
) -> IngestResult:
    """Keeps every image below ``images`` in ``store`` as KEY.jpg or KEY.png, upright and 8 bit.

    The key is the sha256 of the bytes as they came. A file that any browser shows right is kept unchanged (as
    a hard link where the disk allows, so do not edit images in place); any other becomes an 8-bit RGB PNG.
    Hidden files and linked folders are passed over. Killed and called again, it goes on.

    Args:
        max_pixels: larger images are refused by their header, before they are decoded.
        progress: called with (files done, files in all).

    Raises:
        DataError: ``images`` is no folder.
        PrerequisiteError: the disk is full.
    """
    if not images.is_dir():
        raise DataError(f"{images} is not a folder; expected a folder of images", "Check the path.")
    try:
        store.mkdir(parents=True, exist_ok=True)
        return _ingest(images, store, max_pixels, progress or (lambda _done, _total: None))
    except OSError as error:
        if error.errno not in DISK_FULL_ERRNOS:
            raise
        raise PrerequisiteError(
            f"the disk of {store} is full", "Free some space, then run the same command again."
        ) from None


def _ingest(images: Path, store: Path, max_pixels: int, progress: CountCallback) -> IngestResult:
    index = _load_index(store)
    first_of: dict[str, str] = {}
    records: list[ImageRecord] = []
    quarantined: list[QuarantinedFile] = []
    files = sorted(image_files(images))
    try:
        for done, path in enumerate(files, start=1):
            name = path.relative_to(images).as_posix()
            try:
                seen = _take(path, images, store, max_pixels, index)
                if seen.key in first_of:
                    raise ImageError(f"same content as {first_of[seen.key]}", "Keep one of the two.")  # noqa: TRY301
            except (ImageError, PermissionError, FileNotFoundError) as error:
                quarantined.append(
                    QuarantinedFile(name.encode("utf-8", "replace").decode(), failure_reason(error))
                )
            else:
                first_of[seen.key] = name
                records.append(ImageRecord(seen.key, name, store / seen.file, seen.width, seen.height))
            progress(done, len(files))
    finally:
        _save_index(store, index)
    return IngestResult(tuple(records), tuple(quarantined))


def image_files(images: Path) -> Iterator[Path]:
    """All files that may be meant as images: not hidden, not in linked folders, not an image's labels."""
    for folder, folders, names in os.walk(images, followlinks=False):
        folders[:] = [f for f in folders if not f.startswith(".")]
        stems = {Path(n).stem for n in names if not n.lower().endswith(_LABELS)}
        for name in names:
            label = name.lower().endswith(_LABELS) and Path(name).stem in stems
            if not name.startswith(".") and not label:
                yield Path(folder) / name


def failure_reason(error: ImageError | OSError) -> str:
    """Why an image was left out, for people."""
    return error.problem if isinstance(error, ImageError) else f"it cannot be read: {error.strerror}"


def _take(path: Path, images: Path, store: Path, max_pixels: int, index: dict[str, _Seen]) -> _Seen:
    """The image as the store holds it afterwards.

    Raises:
        ImageError: it cannot be used.
        OSError: it cannot be read or written.
    """
    require_regular_file(path, images)
    place = str(path.resolve())
    status = path.stat()
    seen = index.get(place)
    same = seen is not None and (seen.size, seen.changed_ns) == (status.st_size, status.st_mtime_ns)
    if seen is None or not same or seen.width * seen.height > max_pixels or not (store / seen.file).is_file():
        decoded = decode(path, max_pixels=max_pixels)
        key = sha256_of(path)
        kept = store / f"{key}{decoded.suffix}"
        if not kept.is_file():
            draft = store / f".{key}.draft"
            draft.unlink(missing_ok=True)
            try:
                if decoded.converted is None:
                    _link_or_copy(path, draft)
                else:
                    decoded.converted.save(draft, format="PNG")
                draft.replace(kept)
            finally:
                draft.unlink(missing_ok=True)
        seen = _Seen(status.st_size, status.st_mtime_ns, key, kept.name, decoded.width, decoded.height)
        index[place] = seen
    return seen


def require_regular_file(path: Path, images: Path) -> None:
    """Only what is a file inside its folder, under a name that can be written down, is read.

    Raises:
        ImageError: it is something else.
        OSError: it is not there, or may not be looked at.
    """
    try:
        str(path.relative_to(images)).encode("utf-8")
    except UnicodeEncodeError:
        raise ImageError("its name is not UTF-8", "Rename it.") from None
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


def _load_index(store: Path) -> dict[str, _Seen]:
    """What earlier runs remembered; a lost or torn index costs time only, so it is begun anew."""
    try:
        raw: dict[str, dict[str, Any]] = json.loads((store / _INDEX).read_bytes())
        return {place: _Seen(**entry) for place, entry in raw.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _save_index(store: Path, index: dict[str, _Seen]) -> None:
    atomic_write(store / _INDEX, json.dumps({place: asdict(seen) for place, seen in index.items()}))
