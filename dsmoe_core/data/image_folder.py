"""Ingest of a folder of images into a store; files that cannot be used are quarantined with a reason.

A second run over the same folder is fast: an index in the store maps each file (by size and modification
time) to its key, so only new and changed files are read. Quarantined files are tried again on every run.
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
from dsmoe_core.data.formats import label_suffixes
from dsmoe_core.digest import sha256_of
from dsmoe_core.errors import DISK_FULL_ERRNOS, DataError, ImageError, PrerequisiteError
from dsmoe_core.progress import CountCallback
from dsmoe_core.schema import ImageRecord

_INDEX = ".ingested.json"


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


class IngestResult(NamedTuple):
    """Images of a folder that are ready to use, and files that were left out; both ordered by name."""

    images: tuple[ImageRecord, ...]
    quarantined: tuple[QuarantinedFile, ...]


@dataclass(frozen=True, slots=True)
class _IndexEntry:
    """State of a source file when it was last read; valid while size and modification time are unchanged."""

    size: int
    changed_ns: int
    key: str
    file: str
    width: int
    height: int


def ingest_folder(
    images: Path, store: Path, *, max_pixels: int, progress: CountCallback | None = None
) -> IngestResult:
    """Store every image below ``images`` in ``store`` as KEY.jpg or KEY.png, upright and 8 bit.

    The key is the sha256 of the original bytes. A file that every browser shows correctly is stored unchanged
    (as a hard link where the disk allows it, so images must not be edited in place); any other is converted
    to an 8-bit RGB PNG. Hidden files and linked folders are ignored. An interrupted run continues when called
    again.

    Args:
        max_pixels: larger images are refused by their header, before they are decoded.
        progress: called with (files done, files in total).

    Raises:
        DataError: ``images`` is not a folder.
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
    first_name: dict[str, str] = {}
    records: list[ImageRecord] = []
    quarantined: list[QuarantinedFile] = []
    files = sorted(image_files(images))
    try:
        for done, path in enumerate(files, start=1):
            name = path.relative_to(images).as_posix()
            try:
                entry = _stored(path, images, store, max_pixels, index)
                if entry.key in first_name:
                    raise ImageError(f"same content as {first_name[entry.key]}", "Keep one of the two.")  # noqa: TRY301
            except (ImageError, PermissionError, FileNotFoundError) as error:
                quarantined.append(QuarantinedFile.of(name, error))
            else:
                first_name[entry.key] = name
                records.append(ImageRecord(entry.key, name, store / entry.file, entry.width, entry.height))
            progress(done, len(files))
    finally:
        _save_index(store, index)
    return IngestResult(tuple(records), tuple(quarantined))


def image_files(images: Path) -> Iterator[Path]:
    """All files that could be images: not hidden, not in a linked folder, not the label file of an image."""
    suffixes = label_suffixes()
    for folder, folders, names in os.walk(images, followlinks=False):
        folders[:] = [f for f in folders if not f.startswith(".")]
        stems = {Path(n).stem for n in names if not n.lower().endswith(suffixes)}
        for name in names:
            is_label = name.lower().endswith(suffixes) and Path(name).stem in stems
            if not name.startswith(".") and not is_label:
                yield Path(folder) / name


def failure_reason(error: ImageError | OSError) -> str:
    """Why an image was left out, as a sentence for people."""
    return error.problem if isinstance(error, ImageError) else f"it cannot be read: {error.strerror}"


def _stored(
    path: Path, images: Path, store: Path, max_pixels: int, index: dict[str, _IndexEntry]
) -> _IndexEntry:
    """The index entry of an image, which is in the store afterwards.

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
        and (entry.size, entry.changed_ns) == (status.st_size, status.st_mtime_ns)
        and entry.width * entry.height <= max_pixels
        and (store / entry.file).is_file()
    ):
        return entry
    decoded = decode(path, max_pixels=max_pixels)
    key = sha256_of(path)
    target = store / f"{key}{decoded.suffix}"
    if not target.is_file():
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
    entry = _IndexEntry(status.st_size, status.st_mtime_ns, key, target.name, decoded.width, decoded.height)
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
        return {source: _IndexEntry(**entry) for source, entry in raw.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _save_index(store: Path, index: dict[str, _IndexEntry]) -> None:
    atomic_write(store / _INDEX, json.dumps({source: asdict(entry) for source, entry in index.items()}))
