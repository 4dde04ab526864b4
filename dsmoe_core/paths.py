"""Checks of paths before a long computation, and errors of the file system with a remedy."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from dsmoe_core.errors import PrerequisiteError

PATH_ERRNOS = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EEXIST,  # a file where a folder is made
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ELOOP,
)
"""Errors of a path that the user can correct: permissions, the kind of the path, and its length."""


def check_output_file(path: Path) -> None:
    """Check that a file can be written: its folder exists or can be made, and is writable.

    Raises:
        PrerequisiteError: it cannot be written.
    """
    try:
        if path.is_dir():
            raise PrerequisiteError(f"{path} is a folder; expected the name of a file", "Add a file name.")
        if path.exists() and not path.is_file():  # a device or a pipe, such as /dev/stdout
            _require(os.access(path, os.W_OK), path)
            return
        _check_folder(path.parent)
    except OSError as error:
        raise path_error(error, path) from error


def check_output_folder(path: Path, *, replaced: bool = False) -> None:
    """Check that files can be written to a folder, which exists or can be made.

    Args:
        replaced: the folder is replaced as a whole, so the folder that contains it has to be writable.

    Raises:
        PrerequisiteError: it cannot be written to.
    """
    try:
        _check_folder(path)
        if replaced:
            _check_folder(path.absolute().parent)
    except OSError as error:
        raise path_error(error, path) from error


def path_error(error: OSError, path: Path | str | None = None) -> PrerequisiteError:
    """The error for a path that the system refuses.

    Args:
        path: the path that was checked; by default the one in the system's error.
    """
    name = path or error.filename
    subject = "a file" if name is None else os.fsdecode(name)
    return PrerequisiteError(
        f"{subject} cannot be used: {error.strerror}",
        "Check that the path is right and that you may read and write there, or give another one.",
    )


def _check_folder(folder: Path) -> None:
    """Check with a temporary file that a folder, or the nearest folder above that exists, is writable."""
    folder = folder.expanduser().absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir():
        raise PrerequisiteError(f"{existing} is a file; expected a folder", "Give another path.")
    with tempfile.TemporaryFile(dir=existing):
        pass


def _require(permitted: bool, path: Path) -> None:
    if not permitted:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
