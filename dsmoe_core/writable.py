"""Checks before long work that its result can be written."""

from __future__ import annotations

import tempfile
from pathlib import Path

from dsmoe_core.errors import PrerequisiteError


def require_writable_folder(path: Path) -> None:
    """Check that files can be written into a folder, which may be missing so far.

    Raises:
        PrerequisiteError: it is a file, or it cannot be written or created.
    """
    existing = path.expanduser().resolve()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise PrerequisiteError(f"{existing} is a file; expected a folder", "Give another folder.")
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        where = f"{path} cannot be written"
        if existing != path.expanduser().resolve():
            where += f", because nothing can be created in {existing}"
        raise PrerequisiteError(
            f"{where}: {error.strerror}", "Change its permissions, or give another folder."
        ) from None
