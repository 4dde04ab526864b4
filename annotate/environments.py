"""Python environments of other programs' own, built once a machine from a hashed lock.

For a program whose pins or licence fit no other part of the house: it never shares an environment with it.
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

from annotate.uv import find_uv
from dsmoe_core.digest import sha256_of
from dsmoe_core.errors import DISK_FULL_ERRNOS, PrerequisiteError
from dsmoe_core.progress import StatusCallback


@dataclass(frozen=True, slots=True)
class LockedEnvironment:
    """What an environment holds.

    Attributes:
        name: what its folder's name begins with.
        title: for people.
        lock: every package with its hashes.
        space_bytes: what building it needs; uv unpacks beside it.
        size: of what is downloaded and kept, for people.
    """

    name: str
    title: str
    lock: Path
    space_bytes: int
    size: str


def ensure(wanted: LockedEnvironment, environments: Path, on_status: StatusCallback) -> Path:
    """The folder ``environments/NAME-HASH``; built first if it is not there.

    A build that was killed is thrown away and begun again: only the ready-marker, written last, counts. Two
    processes do not build at once: the second waits for the first.

    Raises:
        PrerequisiteError: uv is missing, the disk is full, or a package cannot be had.
    """
    identity = sha256_of(wanted.lock)[:12]
    folder = environments / f"{wanted.name}-{identity}"
    ready = folder / "READY"
    if not ready.exists():
        make_folder(environments)
        with process_lock(environments / f"{folder.name}.lock", on_status):
            if not ready.exists():
                _build(wanted, folder, on_status)
                ready.touch()
    return folder


def _build(wanted: LockedEnvironment, folder: Path, on_status: StatusCallback) -> None:
    uv = find_uv(f"builds {wanted.title}'s environment")
    require_free_space(folder.parent, wanted.space_bytes, f"{wanted.title}'s environment")
    on_status(f"making an environment for {wanted.title} (once; {wanted.size})")
    _run(wanted, [uv, "venv", "--clear", "--quiet", "--python", sys.executable, str(folder)])
    on_status(f"installing {wanted.title} (once; under a minute after the downloads)")
    python = folder / "bin" / "python"
    sync = [uv, "pip", "sync", "--quiet", "--require-hashes", "--python", str(python), str(wanted.lock)]
    _run(wanted, sync)


def _run(wanted: LockedEnvironment, command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    if os.strerror(errno.ENOSPC) in done.stderr:
        raise _no_space(Path(command[-1]), f"{wanted.title}'s environment")
    last = " ".join(done.stderr.split())[-600:]
    raise PrerequisiteError(
        f"uv could not build {wanted.title}'s environment (exit {done.returncode}): {last}",
        "Check that this machine reaches its package index, then run it again.",
    )


def require_free_space(folder: Path, needed: int, what: str) -> None:
    """Refuse to begin where it must fail half way.

    Raises:
        PrerequisiteError: less than ``needed`` bytes are free on the folder's disk.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise PrerequisiteError(
            f"only {free / 1e9:.1f} GB are free on the disk of {folder}; {what} needs {needed / 1e9:.1f} GB",
            "Free some space, or choose a folder on another disk.",
        )


def make_folder(folder: Path) -> None:
    """Make a folder and those above it.

    Raises:
        PrerequisiteError: the disk is full, or the folder may not be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise _no_space(folder, "it") from error
        raise PrerequisiteError(
            f"cannot make the folder {folder}: {error.strerror}", "Choose a folder that you may write to."
        ) from error


@contextmanager
def process_lock(lock: Path, on_status: StatusCallback) -> Iterator[None]:
    """Hold a lock between processes; it goes with the process, however that ends."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_status("another process is at it; waiting for it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _no_space(folder: Path, what: str) -> PrerequisiteError:
    return PrerequisiteError(
        f"the disk of {folder} is full; {what} could not be written",
        "Free some space, or choose a folder on another disk.",
    )
