"""Files that are missing, of another kind or damaged, as inputs and in a workspace: one line, exit code 2."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import cli
from tests.pipelines.blocks import write_blocks

KINDS = (
    "missing",
    "garbage",
    "empty",
    "folder",
    "list.json",
    "deep.json",
    "loop",
    "dangling",
    "/dev/null",
    "n" * 300,
)
"""Paths that are no valid input of any command."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with these paths, data/, and w, a workspace after two rounds with the third open."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "garbage").write_bytes(bytes(range(256)) * 10)
    (folder / "empty").touch()
    (folder / "folder").mkdir()
    (folder / "list.json").write_text("[]")
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("nowhere")
    data, w = write_blocks(folder / "data"), str(folder / "w")
    images = ["--images", str(data / "images"), "--test", str(data / "val.json")]
    assert cli.run(["init", w, *images, "--classes", "rust,brick,plum", "--dry-run", "--budget", "3"]) == 0
    for step in ("open", "annotate", "close", "open", "annotate"):
        command = ["annotate", w, "--simulated", str(data / "train.json")]
        assert cli.run(command if step == "annotate" else ["round", step, w]) == 0
    return folder


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert cli.run(words) == 2, words
    errors = capsys.readouterr().err.splitlines()
    assert [line[:7] for line in errors if not line.startswith("  ")] == ["error: "], errors


IMAGES, LABELS = "data/images", "data/train.json"
COMMANDS = (
    f"init w2 --dry-run --images {IMAGES} --annotations @",
    f"init w2 --dry-run --classes rust --images {IMAGES} --text-encoder @",
    f"init w2 --classes rust --images {IMAGES} --start @",
    f"train m --annotations @ --images {IMAGES}",
    f"train m --annotations {LABELS} --images @",
    f"evaluate champion --workspace w --annotations @ --images {IMAGES}",
    f"evaluate @ --annotations {LABELS} --images {IMAGES}",
    f"predict champion --workspace w --json p.json --images {IMAGES} --class-book @",
    "classes validate @",
    "classes publish --workspace w --report @",
    "classes draft w --llm http://127.0.0.1:1/v1 --model m --notes @",
    "annotate w --simulated @",
    "data anchors --annotations @",
    "benchmark tables @",
    "status @",
    "weights mobile-sam --to weights --from @",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_input_that_cannot_be_used_is_refused(
    command: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    kinds = set(KINDS)
    if command.startswith("benchmark"):  # these are documents without tables
        kinds -= {"empty", "list.json", "deep.json", "/dev/null"}
    for kind in sorted(kinds):
        refused(command.replace("@", kind).split(), capsys)
    assert not (place / "w2").exists()
    assert not (place / "m").exists()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garble(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 4)


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def replace_by_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("x")


CLOSE, ADD = "round close c", f"add c --images {IMAGES}"
DAMAGES: list[tuple[str, Callable[[Path], object], str]] = [
    ("dsmoe.yaml", garble, "status c"),
    ("dsmoe.yaml", Path.unlink, "status c"),
    ("journal.sqlite", garble, "status c"),
    ("class_books.sqlite", garble, "classes list c"),
    ("classes.yaml", garble, "classes validate c"),
    ("quarantine.json", garble, ADD),
    ("quarantine.json", empty, ADD),
    ("studio/stub.json", halve, CLOSE),
    ("studio", replace_by_file, CLOSE),
    ("predictions", replace_by_file, CLOSE),
    ("models/*/model.safetensors", empty, CLOSE),
    ("models/*/model.safetensors", halve, CLOSE),
    ("models/*/model.safetensors", Path.unlink, CLOSE),
    ("models/*/card.json", garble, "models list c"),
    ("datasets/*.json", garble, CLOSE),
]


@pytest.mark.parametrize(("name", "damage", "command"), DAMAGES)
def test_damaged_workspace_is_refused(
    name: str,
    damage: Callable[[Path], object],
    command: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    shutil.rmtree("c", ignore_errors=True)
    shutil.copytree("w", "c")
    paths = list(Path("c").glob(name))
    assert paths
    for path in paths:
        damage(path)
    refused(command.split(), capsys)
