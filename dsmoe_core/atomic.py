"""Atomic writes of files and folders: after a crash the target has its old or its new content."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from dsmoe_core.errors import DISK_FULL_ERRNOS, PrerequisiteError, WorkspaceError


def atomic_write(path: Path, content: str | bytes, *, private: bool = False) -> None:
    """Write a file atomically: a reader sees the old content or the new content, never a part of it.

    Args:
        path: parent folders are created. A device or pipe, such as /dev/stdout, is written to directly.
        content: a text is written as UTF-8.
        private: create the file with mode 0600, so that other users can never read it.

    Raises:
        PrerequisiteError: the disk is full.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    if path.exists() and not path.is_file():
        with disk_full_as_error(path), path.open("wb") as file:
            file.write(data)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        draft.unlink(missing_ok=True)  # left by a killed process that had the same id
        with (
            disk_full_as_error(path),
            open(draft, "xb", opener=_open_private if private else None) as file,
        ):
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


@contextmanager
def atomic_folder(path: Path, replaceable: Collection[str]) -> Iterator[Path]:
    """Yield a draft folder that replaces ``path`` if the block succeeds, and is removed if it fails.

    ``path`` never holds a mix of old and new files. The replacement takes two renames; if the process is
    killed between them, ``path`` is missing, and the old and the new folder lie next to it.

    Args:
        replaceable: names of the files and folders in ``path`` that may be replaced.

    Raises:
        WorkspaceError: see :func:`refuse_unknown_files`.
        PrerequisiteError: the disk is full.
    """
    path = path.expanduser().resolve()
    refuse_unknown_files(path, replaceable)
    draft, old = (path.with_name(f".{path.name}.{os.getpid()}.{kind}") for kind in ("tmp", "old"))
    shutil.rmtree(draft, ignore_errors=True)  # left by a killed process that had the same id
    try:
        with disk_full_as_error(path):
            draft.mkdir(parents=True)
            yield draft
            refuse_unknown_files(path, replaceable)
            if path.exists():
                path.rename(old)
            draft.rename(path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        if old.exists():
            shutil.rmtree(old) if path.exists() else old.rename(path)


def refuse_unknown_files(path: Path, replaceable: Collection[str]) -> None:
    """Check that replacing a folder does not delete files of the user.

    Raises:
        WorkspaceError: the path is a file, contains entries not in ``replaceable``, or contains the current
            working directory.
    """
    path = path.expanduser().resolve()
    remedy = "Give a new folder, an empty one, or one that the same command wrote."
    if path.exists() and not path.is_dir():
        raise WorkspaceError(f"{path} is not a folder", remedy)
    if Path.cwd().is_relative_to(path):
        raise WorkspaceError(f"{path} contains the current directory and cannot be replaced", remedy)
    unknown = sorted(p.name for p in path.iterdir() if p.name not in replaceable) if path.exists() else []
    if unknown:
        raise WorkspaceError(f"{path} holds {unknown[0]}, which would be lost", remedy)


@contextmanager
def disk_full_as_error(path: Path) -> Iterator[None]:
    """Convert "no space left on device" and similar system errors into a :class:`PrerequisiteError`.

    Raises:
        PrerequisiteError: the disk is full, or a quota or file size limit is reached.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL_ERRNOS:
            raise
        raise disk_full_error(path, error) from error


def disk_full_error(path: Path | str, error: OSError) -> PrerequisiteError:
    """The error for a file that could not be written because the disk is full."""
    return PrerequisiteError(
        f"disk full: {path} could not be written ({error.strerror})",
        "Free some space and run the same command again; finished work is kept.",
    )
