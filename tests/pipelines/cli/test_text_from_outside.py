"""Titles, class names and file names that are markup somewhere, on the command line and in its files."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
import yaml
from nasty_names import CLASS_NAMES, CONTROL, IMAGE_TAG, NAMES, SHORT
from rich.table import Table

from pipelines import cli
from pipelines.cli import terminal
from pipelines.cli.terminal import PlainConsole, TerminalReporter
from pipelines.workspace.workspace import Workspace


@pytest.fixture
def images(blocks: Path, tmp_path: Path) -> Path:
    """Images with nasty file names, in folders with nasty names where a name has slashes."""
    folder = tmp_path / "images"
    sources = sorted((blocks / "images").iterdir())
    for number, name in enumerate([*SHORT, *CONTROL]):
        target = folder / f"{name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(sources[number % len(sources)], target)
        with target.open("ab") as file:
            file.write(bytes([number]))  # the images differ
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The output of a command that must succeed."""
    assert cli.run([*map(str, arguments)]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A terminal that wraps no name."""
    monkeypatch.setenv("COLUMNS", "1000")
    monkeypatch.setattr(terminal.console, "width", 1000)


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("title", [t for t in SHORT if len(t) >= 3])
def test_title_is_shown_as_it_is(
    title: str, blocks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    w = tmp_path / "w"
    source = ("--images", blocks / "images", "--classes", "rust")
    run(capsys, "init", w, *source, "--title", title, "--dry-run")
    assert title in run(capsys, "status", w)
    assert json.loads(run(capsys, "status", w, "--json"))["title"] == title
    assert yaml.safe_load((w / "dsmoe.yaml").read_text(encoding="utf-8"))["title"] == title


@pytest.mark.usefixtures("wide")
def test_class_names_and_file_names_are_shown_as_they_are(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    w = tmp_path / "w"
    names = list(CLASS_NAMES)
    run(capsys, "init", w, "--images", images, "--classes", ",".join(names), "--dry-run")
    with Workspace.open(w) as workspace:
        assert [c.name for c in workspace.class_book().vocabulary()] == names
        assert {i.name for i in workspace.images()} == {f"{n}.png" for n in (*SHORT, *CONTROL)}
    listed = run(capsys, "classes", "list", w)
    assert all(name in listed for name in names)
    run(capsys, "round", "open", w)
    for command in (
        "status",
        "models list",
        "classes facts",
        "classes log",
        "round notes",
        "classes validate",
    ):
        run(capsys, *command.split(), w)
    assert "0 of" in run(capsys, "status", w)


@pytest.mark.parametrize("name", CONTROL)
def test_control_character_in_a_title_or_a_class_is_refused_in_one_line(
    name: str, blocks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = ["init", str(tmp_path / "w"), "--images", str(blocks / "images"), "--dry-run"]
    for options in (["--classes", name], ["--classes", "$x$"], ["--classes", "rust", "--title", name]):
        assert cli.run([*made, *options]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("name", [*NAMES, *CONTROL])
def test_console_prints_names_without_markup(name: str) -> None:
    console = PlainConsole(file=io.StringIO(), width=400)
    table = Table(name, title=name, caption=name)
    table.add_row(name)
    console.print(name)
    console.print(table)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b" not in printed
    assert "\u202e" not in printed
    if name in NAMES:
        assert printed.count(name) == 5  # the line, title, head, cell, caption


@pytest.mark.parametrize("name", [*NAMES, *CONTROL])
def test_progress_shows_names_without_markup(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with TerminalReporter() as progress:
        progress.step(1, name)
        progress.advance(1, 2, name)
        progress.status(name)
        progress.line(name)
        progress.finished(1, name)
    output = capsys.readouterr().out
    if name in NAMES:
        assert output.count(name) == 2


def test_error_message_shows_names_without_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    for name in (IMAGE_TAG, "line [/3]", "clear\x1b[2J"):
        assert cli.run(["status", name]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "\x1b" not in error
    assert cli.run(["status", "line [/3]"]) == 2
    assert "line [/3]" in capsys.readouterr().err


def test_no_module_escapes_console_markup() -> None:
    """The console reads no markup, so it would print the backslashes of an escaped text."""
    sources = Path(cli.__file__).parents[2].glob("pipelines/**/*.py")
    assert [path.name for path in sources if "rich.markup" in path.read_text(encoding="utf-8")] == []
