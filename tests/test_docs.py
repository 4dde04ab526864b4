"""The documents are correct: commands parse, links exist, tables match the result files."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import subprocess
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from pipelines.benchmarks.tables import render
from pipelines.cli import app
from pipelines.cli.options import RESULTS

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
DOCUMENTS += sorted((ROOT / "docs").rglob("*.md"))
# Programs whose arguments are not checked, and programs of the environment, which must be installed.
UNCHECKED_PROGRAMS = {"git", "cd"}
ENVIRONMENT_PROGRAMS = {"pre-commit", "python"}
each = pytest.mark.parametrize


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def console_lines(document: Path) -> list[str]:
    """The lines after a prompt in blocks marked ``console``."""
    blocks = re.findall(r"^```console\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)
    joined = "".join(blocks).replace("\\\n", " ")
    return [line.removeprefix("$ ") for line in joined.splitlines() if line.startswith("$ ")]


def inline_commands(document: Path) -> list[str]:
    """The dsmoe and make commands in running text and tables."""
    prose = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`((?:dsmoe|make) [^`]+)`", prose)


CONSOLE = sorted({line for document in DOCUMENTS for line in console_lines(document)})
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))


def commands(group: Any, above: str = "dsmoe") -> list[str]:
    """All commands below a group, such as ``dsmoe round open``."""
    below = getattr(group, "commands", None)
    if below is None:
        return [above]
    return [line for name, command in below.items() for line in commands(command, f"{above} {name}")]


def test_documents_show_commands() -> None:
    assert len(CONSOLE) > 5
    assert {"test", "check", "demo"} <= TARGETS


def parse(command: Any, words: list[str]) -> None:
    """Parse the words with the real command line, without running the command."""
    below = getattr(command, "commands", {})
    if below and words and not words[0].startswith("-"):
        assert words[0] in below, f"no such command: {words[0]}"
        parse(below[words[0]], words[1:])
    else:
        with suppress(typer.Exit):  # what --help ends with
            command.make_context(command.name, words)


@each("line", CONSOLE)
def test_console_line_parses(line: str) -> None:
    words = shlex.split(line, comments=True)
    program = Path(words[0]).name
    if program == "dsmoe":
        parse(get_command(app), words[1:])
    elif program == "make":
        assert {word for word in words[1:] if "=" not in word} <= TARGETS
    elif program in ENVIRONMENT_PROGRAMS:
        assert words[0] == f".venv/bin/{program}"
        assert words[0] in MAKEFILE or importlib.util.find_spec(program.replace("-", "_"))
    else:
        assert program in UNCHECKED_PROGRAMS, f"{program}: unknown program in a document"


@each("line", sorted({line for document in DOCUMENTS for line in inline_commands(document)}))
def test_inline_command_exists(line: str) -> None:
    """Required arguments may be missing; command and option names must exist."""
    words = shlex.split(line)
    if words[0] == "make":
        assert {word for word in words[1:] if "=" not in word and not word.startswith("-")} <= TARGETS
    else:
        shown = CliRunner().invoke(app, [*words[1:], "--help"])
        assert shown.exit_code == 0, shown.output


@each(
    ("line", "complaint"),
    [
        ("demo --no-such-option", "No such option"),
        ("demo --rounds many", "valid integer"),
        ("demo surplus", "unexpected extra argument"),
        ("no-such-command", "no such command"),
    ],
)
def test_parse_rejects_wrong_command_lines(line: str, complaint: str) -> None:
    with pytest.raises(Exception, match=complaint):
        parse(get_command(app), line.split())


def test_make_lists_every_target() -> None:
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    listed = set(re.findall(r"^  make ([a-z-]+)", shown, re.MULTILINE))
    assert listed == TARGETS


def test_commands_document_names_every_command() -> None:
    documented = " ".join(inline_commands(ROOT / "docs" / "commands.md"))
    every = commands(get_command(app))
    assert "dsmoe demo" in every
    assert [command for command in every if command not in documented] == []


@each("document", DOCUMENTS, ids=relative)
def test_links_exist(document: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#\s]*)(?:#[^)]*)?\)", document.read_text())
    broken = [link for link in links if link and not (document.parent / link).exists()]
    assert broken == []


def test_code_references_of_the_architecture_document_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    examples = set(re.findall(r"Write `([\w/]+\.py)`", text)) | set(
        re.findall(r"Test it in\s`([\w/]+\.py)`", text)
    )
    references = re.findall(r"`(\w+/[\w/]+\.py)(?::(\w+))?`", text)
    assert len(references) > 20
    for file, name in references:
        if file in examples and not (ROOT / file).exists():
            continue  # a file that the reader writes
        tree = ast.parse((ROOT / file).read_text())
        defined = {getattr(node, "name", None) for node in ast.walk(tree)}
        assert not name or name in defined, f"{file}:{name}"


@each("document", DOCUMENTS, ids=relative)
def test_tables_match_the_result_files(document: Path) -> None:
    assert document.read_text() == render(document.read_text(), ROOT / RESULTS)


def test_readme_has_the_table_of_the_demo() -> None:
    assert "<!-- results:demo -->" in (ROOT / "README.md").read_text()


def test_decisions_have_date_status_code_and_reason() -> None:
    decisions = re.split(r"^### ", (ROOT / "docs" / "decisions.md").read_text(), flags=re.MULTILINE)[1:]
    headings = [decision.splitlines()[0] for decision in decisions]
    assert len(headings) == len(set(headings)) > 10
    for decision in decisions:
        head, line, _, *body = re.split(r"^## ", decision, flags=re.MULTILINE)[0].splitlines()
        status = re.fullmatch(r"\d{4}-\d\d-\d\d, (in force|replaced by \[.+\]\(.+\)), `(.+)`", line)
        assert status, head
        assert (ROOT / status[2]).exists(), head
        assert any(body), head


def test_changelog_has_the_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    releases = re.findall(r"^## \[([^]]+)\](?: - \d{4}-\d\d-\d\d)?$", changelog, re.MULTILINE)
    assert releases[:1] == ["Unreleased"]
    assert releases[1:2] in ([], [version])
    kinds = set(re.findall(r"^### (.+)$", changelog, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert "- " in changelog
