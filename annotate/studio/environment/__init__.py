"""Label Studio's own Python environment, built once a machine from the hashed lock beside this file.

Label Studio's pins fit no other part of the house, so it never shares an environment with it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from annotate.uv import find_uv
from dsmoe_core.errors import NO_ROOM, PrerequisiteError

LOCK = Path(__file__).parent / "label-studio.lock"
SPACE_BYTES = 1_500_000_000  # the environment itself takes 1.0 GB, and uv unpacks beside it

Say = Callable[[str], None]  # one line on what is being done now


def ensure(environments: Path, say: Say) -> Path:
    """The ``label-studio`` program, in ``environments/label-studio-HASH``; built first if it is not there.

    A build that was killed is thrown away and begun again: only the ready-marker, written last, counts. Two
    processes do not build at once: the second waits for the first.

    Raises:
        PrerequisiteError: uv is missing, the disk is full, or a package cannot be had.
    """
    identity = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    folder = environments / f"label-studio-{identity}"
    program, ready = folder / "bin" / "label-studio", folder / "READY"
    if not ready.exists():
        make_folder(environments)
        with only_one(environments / f"{folder.name}.lock", say):
            if not ready.exists():
                _build(folder, say)
                ready.touch()
    return program


def _build(folder: Path, say: Say) -> None:
    uv = find_uv("builds Label Studio's environment")
    need_space(folder.parent, SPACE_BYTES, "Label Studio's environment")
    say("making an environment for Label Studio (once; 1 GB)")
    _run([uv, "venv", "--clear", "--quiet", "--python", sys.executable, str(folder)])
    say("installing Label Studio (once; under a minute after the downloads)")
    python = folder / "bin" / "python"
    _run([uv, "pip", "sync", "--quiet", "--require-hashes", "--python", str(python), str(LOCK)])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    if os.strerror(errno.ENOSPC) in done.stderr:
        raise _no_space(Path(command[-1]), "Label Studio's environment")
    last = " ".join(done.stderr.split())[-600:]
    raise PrerequisiteError(
        f"uv could not build Label Studio's environment (exit {done.returncode}): {last}",
        "Check that this machine reaches its package index, then run it again.",
    )


def need_space(folder: Path, needed: int, what: str) -> None:
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
        if error.errno in NO_ROOM:
            raise _no_space(folder, "Label Studio") from error
        raise PrerequisiteError(
            f"cannot make the folder {folder}: {error.strerror}", "Choose a folder that you may write to."
        ) from error


@contextmanager
def only_one(lock: Path, say: Say) -> Iterator[None]:
    """Hold a lock between processes; it goes with the process, however that ends."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process is at it; waiting for it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _no_space(folder: Path, what: str) -> PrerequisiteError:
    return PrerequisiteError(
        f"the disk of {folder} is full; {what} could not be written",
        "Free some space, or choose a folder on another disk.",
    )
