"""Labels on the command line: --strict, --unlabelled, predictions, and the account that is shown and kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dsmoe_core.data.import_account import ImportAccount, Reason, Unlabelled
from pipelines import cli
from pipelines.cli import labels
from pipelines.workspace.import_log import read_imports
from pipelines.workspace.workspace import Workspace

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Eight different images."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(8):
        Image.new("RGB", (64, 48), (i, 0, 0)).save(folder / f"p{i}.png")
    return folder


def write(path: Path, boxes: list[dict[str, Any]], images: range = range(8)) -> Path:
    content = {
        "images": [{"id": i, "file_name": f"p{i}.png", "width": 64, "height": 48} for i in images],
        "annotations": [{"id": i, "category_id": 0, **box} for i, box in enumerate(boxes)],
        "categories": [{"id": 0, "name": "short"}],
    }
    path.write_text(json.dumps(content))
    return path


def three(**extra: Any) -> list[dict[str, Any]]:
    return [{"image_id": i, "bbox": [10, 10, 8, 8], **extra} for i in range(3)]


def init(tmp_path: Path, photos: Path, *more: str | Path) -> int:
    return cli.run([*map(str, ("init", tmp_path / "w", "--images", photos, "--dry-run", *more))])


def account(tmp_path: Path, name: str = "annotations") -> ImportAccount:
    return read_imports(tmp_path / "w")[0].accounts[name]


@pytest.mark.parametrize(
    ("option", "labelled", "unlabelled"),
    [
        ((), 3, Unlabelled.IGNORE),
        (("--unlabelled", "ignore"), 3, Unlabelled.IGNORE),
        (("--unlabelled", "negative"), 8, Unlabelled.NEGATIVE),
    ],
)
def test_images_without_a_box_count_as_the_option_says(
    tmp_path: Path,
    photos: Path,
    capsys: Captured,
    option: tuple[str, ...],
    labelled: int,
    unlabelled: Unlabelled,
) -> None:
    path = write(tmp_path / "result.json", three())
    assert init(tmp_path, photos, "--annotations", path, *option) == 0
    output = capsys.readouterr().out
    assert "8 images" in output
    assert "without a box: 5 images" in output
    with Workspace.open(tmp_path / "w") as workspace:
        assert len(workspace.annotations()) == labelled
    assert account(tmp_path).unlabelled is unlabelled
    assert account(tmp_path).is_balanced


@pytest.mark.parametrize(("replies", "labelled"), [(["negative"], 8), (["what", "IGNORE"], 3)])
def test_person_at_a_terminal_is_asked(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, replies: list[str], labelled: int
) -> None:
    left = iter(replies)
    monkeypatch.setattr(labels, "is_interactive", lambda: True)
    monkeypatch.setattr(labels.typer, "prompt", lambda *_, **__: next(left))
    path = write(tmp_path / "result.json", three())
    assert init(tmp_path, photos, "--annotations", path) == 0
    with Workspace.open(tmp_path / "w") as workspace:
        assert len(workspace.annotations()) == labelled
    assert not list(left)


def test_test_set_without_the_option_has_negatives(tmp_path: Path, photos: Path, capsys: Captured) -> None:
    path = write(tmp_path / "val.json", three())
    assert init(tmp_path, photos, "--test", path) == 0
    assert "without a box: 5 images" in capsys.readouterr().out
    with Workspace.open(tmp_path / "w") as workspace:
        assert len(workspace.test_set()) == 8
    assert account(tmp_path, "test").unlabelled is Unlabelled.NEGATIVE


WRONG = [{"image_id": 0, "bbox": [1, 1, 0, 5]}, {"image_id": 0, "bbox": [-3, 1, 8, 5]}, {"image_id": 99}]


def test_what_is_left_out_is_shown_and_kept(tmp_path: Path, photos: Path, capsys: Captured) -> None:
    path = write(tmp_path / "result.json", [*three(), *WRONG], range(3))
    assert init(tmp_path, photos, "--annotations", path) == 0
    output = capsys.readouterr().out
    for reason in (Reason.NO_AREA, Reason.OVER_EDGE, Reason.UNKNOWN_IMAGE):
        assert reason.value in output
    assert "annotation 3" in output
    assert "without labels: 5 images" in output
    kept = account(tmp_path)
    assert (kept.boxes_in, kept.boxes_taken, kept.boxes_clipped, kept.boxes_left_out) == (6, 3, 1, 2)
    assert len(kept.images_without_labels) == 5


def test_at_most_ten_entries_are_shown_by_name(tmp_path: Path, photos: Path, capsys: Captured) -> None:
    wrong = [{"image_id": 0, "bbox": [1, 1, 0, 5]}] * 14
    path = write(tmp_path / "result.json", [*three(), *wrong], range(3))
    assert init(tmp_path, photos, "--annotations", path) == 0
    output = capsys.readouterr().out
    assert output.count(", annotation ") == 10
    assert "and 4 more" in output


@pytest.mark.parametrize("option", ["--annotations", "--test"])
def test_strict_refuses_and_names_every_entry(
    tmp_path: Path, photos: Path, capsys: Captured, option: str
) -> None:
    path = write(tmp_path / "result.json", [*three(), *WRONG], range(3))
    assert init(tmp_path, photos, option, path, "--strict") == 2
    error = capsys.readouterr().err
    assert [f"annotation {i}" in error for i in (3, 4, 5)] == [True] * 3
    assert error.count("\n") == 4
    assert not (tmp_path / "w").exists()


def test_strict_refuses_labels_without_an_image(tmp_path: Path, photos: Path, capsys: Captured) -> None:
    (photos / "p2.png").unlink()
    path = write(tmp_path / "result.json", three(), range(3))
    assert init(tmp_path, photos, "--annotations", path, "--strict") == 2
    assert "p2.png" in capsys.readouterr().err
    assert init(tmp_path, photos, "--annotations", path) == 0


def test_predictions_are_refused_as_labels_unless_they_are_wanted(
    tmp_path: Path, photos: Path, capsys: Captured
) -> None:
    path = write(tmp_path / "predictions.json", three(score=0.9), range(3))
    assert init(tmp_path, photos, "--annotations", path) == 2
    error = capsys.readouterr().err
    assert "--predictions-as-labels" in error
    assert error.count("\n") == 1
    assert init(tmp_path, photos, "--annotations", path, "--predictions-as-labels") == 0
    with Workspace.open(tmp_path / "w") as workspace:
        assert len(workspace.annotations()) == 3


def test_names_with_markup_are_shown_as_they_are(tmp_path: Path, photos: Path, capsys: Captured) -> None:
    content = json.loads(write(tmp_path / "result.json", three(), range(3)).read_text())
    content["images"].append({"id": 9, "file_name": "line [/3] [red].png", "width": 64, "height": 48})
    content["annotations"].append({"id": 9, "image_id": 9, "category_id": 0, "bbox": [1, 1, 5, 5]})
    (tmp_path / "result.json").write_text(json.dumps(content))
    assert init(tmp_path, photos, "--annotations", tmp_path / "result.json") == 0
    assert "line [/3] [red].png" in capsys.readouterr().out


def test_added_labels_have_an_account(tmp_path: Path, photos: Path, capsys: Captured) -> None:
    assert init(tmp_path, photos, "--classes", "short") == 0
    path = write(tmp_path / "result.json", [*three(), *WRONG])
    add = ["add", tmp_path / "w", "--images", photos, "--annotations", path]
    assert cli.run([*map(str, add), "--strict"]) == 2
    assert cli.run([*map(str, add)]) == 0
    record = read_imports(tmp_path / "w")[0]
    assert record.command == "add"
    assert record.accounts["annotations"].unlabelled is Unlabelled.IGNORE
    assert record.accounts["annotations"].boxes_left_out == 2


@pytest.mark.parametrize(
    "command",
    [
        ("train", "out"),
        ("evaluate", "model"),
        ("data", "preview", "--out", "sheet.png"),
        ("data", "anchors"),
    ],
)
def test_every_command_that_reads_labels_can_be_strict(
    tmp_path: Path,
    photos: Path,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "result.json", [*three(), *WRONG], range(3))
    files = ["--annotations", str(path), "--images", str(photos)]
    assert cli.run([*command, *files, "--strict"]) == 2
    error = capsys.readouterr().err
    assert [f"annotation {i}" in error for i in (3, 4, 5)] == [True] * 3
