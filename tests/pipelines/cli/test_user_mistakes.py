"""Mistakes on the command line, for every command and option: one line, exit code 2, before the work."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from pipelines import cli
from pipelines.cli.options import output_file, output_folder, replaced_folder

ROOT = Path(__file__).resolve().parents[3]
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2
"""Numbers of Linux: the operation that drops a capability, and those that ignore the modes of files."""


def all_commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Path and object of every command."""
    for name, sub in getattr(command, "commands", {}).items():
        yield from all_commands(sub, (*path, name))
    if not hasattr(command, "commands"):
        yield path, command


COMMANDS = dict(all_commands(typer.main.get_command(cli.app)))


def kind(parameter: Any) -> str:
    return str(parameter.type_descriptor.annotation)


def checked_by(parameter: Any) -> object:
    """The function that checks the value of a parameter, below typer's wrapper."""
    return parameter.type_descriptor.parameter_info.callback


PARAMETERS = [(path, parameter) for path, command in COMMANDS.items() for parameter in command.params]
NUMBERS = [(path, p) for path, p in PARAMETERS if kind(p) in ("<class 'int'>", "<class 'float'>")]
OUTPUTS = [
    (path, p) for path, p in PARAMETERS if checked_by(p) in (output_file, output_folder, replaced_folder)
]


def identity(value: Any) -> str:
    return " ".join(value) if isinstance(value, tuple) else getattr(value, "name", str(value))


def arguments(path: tuple[str, ...], chosen: Any, value: str) -> list[str]:
    """A command line with a value for one parameter, and values for the required ones."""
    words: list[str] = [*path]
    for parameter in COMMANDS[path].params:
        is_argument = not parameter.opts[0].startswith("-")
        if parameter is chosen:
            words += [value] if is_argument else [f"{parameter.opts[0]}={value}"]
        elif parameter.required:
            choices = parameter.type_descriptor.choices
            filled = str(next(iter(choices)).value) if choices else "nothing/here.safetensors"
            words += [filled] if is_argument else [parameter.opts[0], filled]
    return words


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of the error message."""
    assert cli.run(words) == 2, words
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    return line


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: empty, except for a file and a folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    return tmp_path


@pytest.mark.parametrize(("path", "parameter"), NUMBERS, ids=identity)
def test_number_out_of_range_is_refused(
    path: tuple[str, ...], parameter: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = parameter.type_descriptor.parameter_info
    values = ["many", "", "nan", "-1" if limits.min is None or limits.min >= 0 else str(limits.min - 1)]
    values += ["inf"] if "float" in kind(parameter) else ["0.5"]
    values += [] if limits.max is None else [str(limits.max + 1)]
    for value in values:
        line = refused(arguments(path, parameter, value), capsys)
        assert parameter.opts[0] in line or parameter.name in line


def test_every_path_that_is_written_is_checked_first() -> None:
    options = ("--json", "--out", "--report", "--work", "--to", "out")
    written = [(path, p) for path, p in PARAMETERS if p.opts[0] in options and "Path" in kind(p)]
    unchecked = {" ".join((*path, p.opts[0])) for path, p in written if (path, p) not in OUTPUTS}
    assert unchecked == {"classes publish --report"}  # this one is read
    assert len(OUTPUTS) > 25


@pytest.mark.parametrize(("path", "parameter"), OUTPUTS, ids=identity)
def test_output_that_cannot_be_written_is_refused_before_the_work(
    path: tuple[str, ...], parameter: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ending = {("data", "preview"): ".png", ("pretrain",): ".safetensors"}.get(path, "")
    wrong_kind = "folder" if checked_by(parameter) is output_file else "file"
    for value in (f"file/x{ending}", f"/proc/self/x/y{ending}", f"{'n' * 300}{ending}", wrong_kind):
        assert (
            value.split("/")[-1][:9] in refused(arguments(path, parameter, value), capsys) or "file" in value
        )
    assert sorted(p.name for p in folder.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize(
    "words",
    [("init", "w", "--images", "{blocks}/images", "--classes", "rust"), ("demo", "--data", "{blocks}")],
    ids=lambda words: words[0],
)
def test_input_size_that_is_no_multiple_of_32_is_refused(
    words: tuple[str, ...], blocks: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused([word.format(blocks=blocks) for word in (*words, "--px", "100")], capsys)
    assert "image_px" in line
    assert "100" in line
    assert not (folder / "w").exists()


def without_rights(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user for whom the modes of files count; they do not count for root."""

    def drop_capabilities() -> None:
        for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH) if os.geteuid() == 0 else ():
            ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)

    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=drop_capabilities,
    )


@pytest.fixture
def readable(folder: Path) -> Iterator[Path]:
    """A folder that may be read and not written."""
    path = folder / "folder"
    path.chmod(0o555)
    yield path
    for inside in (path, *path.rglob("*")):
        inside.chmod(0o755)


@pytest.mark.parametrize(
    "words",
    [
        ("demo", "--dry-run", "--json", "out.json"),
        pytest.param(("demo", "--dry-run"), marks=pytest.mark.slow),
        ("data", "synthesize", "pcb", "--out", "boards"),
        ("evaluate", "m", "--annotations", "a.json", "--images", "i", "--report", "out"),
        ("init", "w", "--images", ".", "--classes", "a"),
        ("pretrain", "mine.safetensors"),
    ],
    ids=" ".join,
)
def test_read_only_folder_is_refused_before_the_work(readable: Path, words: tuple[str, ...]) -> None:
    done = without_rights(readable, *words)
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.strip().splitlines()
    assert line.startswith("error: ")


@pytest.mark.slow
def test_workspace_that_may_not_be_written_is_refused(readable: Path, blocks: Path) -> None:
    readable.chmod(0o755)
    made = ["init", str(readable / "w"), "--images", str(blocks / "images"), "--classes", "rust", "--dry-run"]
    assert cli.run(made) == 0
    for path in (readable, *readable.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    for words in ("round open w", "status w", "classes save w -m x", "models list w"):
        done = without_rights(readable, *words.split())
        assert done.returncode == 2, done.stdout
        [line] = done.stderr.strip().splitlines()
        assert line.startswith("error: ")
