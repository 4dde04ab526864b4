"""Files that are there whole or not at all, whatever happens in between."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dsmoe_core.errors import DISK_FULL_ERRNOS, PrerequisiteError, WorkspaceError


def atomic_write(path: Path, text: str, *, private: bool = False) -> None:
    """Write a text file so that a reader sees the old content or the new one, never half of it.

    Args:
        private: nobody else may read it, at any moment.

    Raises:
        PrerequisiteError: the disk is full.
    """
    if path.exists() and not path.is_file():  # /dev/stdout or a pipe: nothing to replace
        with disk_full_as_error(path), path.open("w", encoding="utf-8") as file:
            file.write(text)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        draft.unlink(missing_ok=True)  # of a process of the same number that was killed
        with (
            disk_full_as_error(path),
            open(draft, "x", encoding="utf-8", opener=_private if private else None) as file,
        ):
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


@contextmanager
def atomic_folder(path: Path, ours: Collection[str]) -> Iterator[Path]:
    """A draft of a folder, which takes the place of ``path`` when the block ends well, or else is removed.

    Killed at any moment, ``path`` is never half old and half new; in the instant between putting the old one
    aside and the new one in its place it may be missing, with both of them beside it.

    Args:
        ours: names of files and folders that may be replaced.

    Raises:
        WorkspaceError: see ``refuse_unknown_files``.
        PrerequisiteError: the disk is full.
    """
    path = path.expanduser().resolve()
    refuse_unknown_files(path, ours)
    draft, old = (path.with_name(f".{path.name}.{os.getpid()}.{kind}") for kind in ("tmp", "old"))
    shutil.rmtree(draft, ignore_errors=True)  # of a process of the same number that was killed
    try:
        with disk_full_as_error(path):
            draft.mkdir(parents=True)
            yield draft
            refuse_unknown_files(path, ours)
            if path.exists():
                path.rename(old)
            draft.rename(path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        if old.exists():
            shutil.rmtree(old) if path.exists() else old.rename(path)


def refuse_unknown_files(path: Path, ours: Collection[str]) -> None:
    """Make sure that nothing of the user's is lost when a folder is replaced.

    Raises:
        WorkspaceError: it is a file, holds something else than ``ours``, or someone is in it right now.
    """
    path = path.expanduser().resolve()
    remedy = "Give a new folder, an empty one, or one that the same command wrote."
    if path.exists() and not path.is_dir():
        raise WorkspaceError(f"{path} is not a folder", remedy)
    if Path.cwd().is_relative_to(path):
        raise WorkspaceError(f"{path} is the present folder or above it and cannot be replaced", remedy)
    strange = sorted(p.name for p in path.iterdir() if p.name not in ours) if path.exists() else []
    if strange:
        raise WorkspaceError(f"{path} holds {strange[0]}, which would be lost", remedy)


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces; what content hashes are taken of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def content_id(value: Any) -> str:
    """The first 16 hex digits of the sha256 of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


@contextmanager
def disk_full_as_error(path: Path) -> Iterator[None]:
    """Turn "no space left" and its kin into the line a user can act on.

    Raises:
        PrerequisiteError: the disk is full, or a quota or size limit is reached.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL_ERRNOS:
            raise
        raise disk_full_error(path, error) from error


def disk_full_error(path: Path | str, error: OSError) -> PrerequisiteError:
    """What to tell a user whose disk has no room for a file."""
    return PrerequisiteError(
        f"disk full: {path} could not be written ({error.strerror})",
        "Free some space and run the same command again; it goes on where it was.",
    )
