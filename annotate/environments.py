"""Separate Python environments for external programs, built once per machine from a lock file with hashes.

For programs whose pinned dependencies or licence do not allow sharing an environment with dsmoe.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dsmoe_core.digest import sha256_of
from dsmoe_core.errors import DISK_FULL_ERRNOS, PrerequisiteError
from dsmoe_core.progress import StatusCallback


@dataclass(frozen=True, slots=True)
class LockedEnvironment:
    """Description of an environment.

    Attributes:
        name: prefix of its folder's name.
        title: name of the program in messages.
        lock: requirements file with every package and its hashes.
        required_bytes: free disk space needed to build it, including what uv unpacks.
        size: download size in messages.
    """

    name: str
    title: str
    lock: Path
    required_bytes: int
    size: str


def ensure(spec: LockedEnvironment, environments: Path, on_status: StatusCallback) -> Path:
    """Folder of the environment, ``environments/NAME-HASH``. Builds the environment if it does not exist.

    An interrupted build is discarded and started again: the environment is complete only with the READY file,
    which is written last. If two processes need it at once, the second waits for the first.

    Raises:
        PrerequisiteError: uv is missing, the disk is full, or a package cannot be installed.
    """
    folder = environments / f"{spec.name}-{sha256_of(spec.lock)[:12]}"
    ready = folder / "READY"
    if not ready.exists():
        make_folder(environments)
        with process_lock(environments / f"{folder.name}.lock", on_status):
            if not ready.exists():
                _build(spec, folder, on_status)
                ready.touch()
    return folder


def _build(spec: LockedEnvironment, folder: Path, on_status: StatusCallback) -> None:
    uv = find_uv(f"build the environment of {spec.title}")
    require_free_space(folder.parent, spec.required_bytes, f"the environment of {spec.title}")
    on_status(f"creating an environment for {spec.title} (once; {spec.size})")
    _run(spec, [uv, "venv", "--clear", "--quiet", "--python", sys.executable, str(folder)])
    on_status(f"installing {spec.title} (once; less than a minute after the downloads)")
    python = folder / "bin" / "python"
    sync = [uv, "pip", "sync", "--quiet", "--require-hashes", "--python", str(python), str(spec.lock)]
    _run(spec, sync)


def _run(spec: LockedEnvironment, command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode == 0:
        return
    if os.strerror(errno.ENOSPC) in result.stderr:
        raise _disk_full(Path(command[-1]), f"the environment of {spec.title}")
    output = " ".join(result.stderr.split())[-600:]
    raise PrerequisiteError(
        f"uv could not build the environment of {spec.title} (exit {result.returncode}): {output}",
        "Check that this machine can reach its package index, then run this again.",
    )


def find_uv(purpose: str) -> str:
    """Path of uv: the one in this environment, else the one on PATH.

    Args:
        purpose: what uv is needed for ("build ..."), for the message.

    Raises:
        PrerequisiteError: uv is not installed.
    """
    try:
        from uv import find_uv_bin

        return find_uv_bin()
    except (ImportError, FileNotFoundError):
        path = shutil.which("uv")
    if path is None:
        raise PrerequisiteError(
            f"uv is neither in this environment nor on PATH; it is needed to {purpose}",
            "Install it: pip install 'dsmoe[annotate]'.",
        )
    return path


def require_free_space(folder: Path, required_bytes: int, purpose: str) -> None:
    """Check the free disk space before a job that would fail half way.

    Args:
        purpose: what needs the space, for the message.

    Raises:
        PrerequisiteError: fewer than ``required_bytes`` are free on the folder's disk.
    """
    free = shutil.disk_usage(folder).free
    if free < required_bytes:
        raise PrerequisiteError(
            f"only {free / 1e9:.1f} GB are free on the disk of {folder}; "
            f"{purpose} needs {required_bytes / 1e9:.1f} GB",
            "Free some space, or choose a folder on another disk.",
        )


def make_folder(folder: Path) -> None:
    """Create a folder and its parents.

    Raises:
        PrerequisiteError: the disk is full, or the folder cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise _disk_full(folder, "the folder") from error
        raise PrerequisiteError(
            f"cannot create the folder {folder}: {error.strerror}", "Choose a folder with write permission."
        ) from error


@contextmanager
def process_lock(lock: Path, on_status: StatusCallback) -> Iterator[None]:
    """Hold an exclusive lock between processes. The system releases it when the process ends."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_status("waiting for another process")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _disk_full(folder: Path, purpose: str) -> PrerequisiteError:
    return PrerequisiteError(
        f"the disk of {folder} is full; {purpose} could not be written",
        "Free some space, or choose a folder on another disk.",
    )
