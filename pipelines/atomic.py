"""Files that are there whole or not at all, whatever happens in between."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dsmoe_core.errors import PrerequisiteError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old content or the new one, never half of it.

    Raises:
        PrerequisiteError: the disk is full.
    """
    if path.exists() and not path.is_file():  # /dev/stdout or a pipe: nothing to replace
        with disk_full_is_an_error(path), path.open("w", encoding="utf-8") as file:
            file.write(text)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with disk_full_is_an_error(path), draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def canonical(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces; what content hashes are taken of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def content_id(value: Any) -> str:
    """The first 16 hex digits of the sha256 of a value's canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:16]


@contextmanager
def disk_full_is_an_error(path: Path) -> Iterator[None]:
    """Turn "no space left" and its kin into the line a user can act on.

    Raises:
        PrerequisiteError: the disk is full, or a quota or size limit is reached.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise disk_full(path, error) from error


def disk_full(path: Path | str, error: OSError) -> PrerequisiteError:
    """What to tell a user whose disk has no room for a file."""
    return PrerequisiteError(
        f"disk full: {path} could not be written ({error.strerror})",
        "Free some space and run the same command again; it goes on where it was.",
    )
