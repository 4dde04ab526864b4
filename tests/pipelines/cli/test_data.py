"""``dsmoe data``: contact sheets of training images, box sizes, and synthetic images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from annotate.studio.label_config import colour
from dsmoe_core.config import ModelConfig, Tiles, TrainingConfig
from dsmoe_core.data import coco
from dsmoe_core.data.augment.sample import Sample
from dsmoe_core.data.batches import AUGMENTATIONS
from dsmoe_core.data.letterbox import LetterboxReader
from dsmoe_core.tiling import training_views
from pipelines import cli
from pipelines.datasets import contact_sheet, labelled_data
from pipelines.datasets.contact_sheet import Row, augmentation_rows, render_sheet
from pipelines.datasets.labelled_data import LabelledData, from_files, from_workspace
from pipelines.settings.workspace import WorkspaceSettings
from pipelines.workspace.workspace import Workspace
from tests.pipelines.blocks import COLOURS

SMALL = ModelConfig(image_px=96)


@pytest.fixture
def data(blocks: Path) -> LabelledData:
    return from_files(coco.read(blocks / "train.json"), blocks / "images", SMALL, blocks / "train.json")


def rows(data: LabelledData, tmp_path: Path, model: ModelConfig = SMALL) -> list[Row]:
    views = training_views(data.sample(6, 42, tmp_path).labelled, model.tiles)
    return augmentation_rows(views, data.classes, LetterboxReader.for_model(model), data.training, columns=6)


def assert_boxes_are_on_blocks(sample: Sample) -> None:
    """Blocks are red at any brightness; the background is grey."""
    for box in sample.boxes:
        x1, y1, x2, y2 = (np.array([*(box[:2] + 2), *(box[2:] - 2)])).astype(int)
        if x2 > x1 and y2 > y1:
            inside = sample.pixels[y1:y2, x1:x2].reshape(-1, 3).mean(0)
            assert inside[0] - inside[1] > 30


def test_augmentation_rows_keep_boxes_on_their_blocks(data: LabelledData, tmp_path: Path) -> None:
    sheet = rows(data, tmp_path)
    assert [row.title.split(":")[0] for row in sheet] == ["no augmentation", *AUGMENTATIONS]
    assert sheet[1].title == "flips: 100% of the images in training"
    assert sheet[-1].title == "mixup: off in training"
    for row in sheet[:-1]:  # mixup blends blocks of two images
        for sample in row.samples:
            assert_boxes_are_on_blocks(sample)
    assert all("pasted" in s.applied[0] for s in sheet[AUGMENTATIONS.index("paste") + 1].samples if s.applied)


def test_tiles_keep_boxes_on_their_blocks(data: LabelledData, tmp_path: Path) -> None:
    model = SMALL.model_copy(update={"tiles": Tiles(px=64, visible=0.3)})
    for sample in rows(data, tmp_path, model)[0].samples:
        assert_boxes_are_on_blocks(sample)


def test_sheet_renders_each_box_in_the_colour_of_its_class(data: LabelledData, tmp_path: Path) -> None:
    (row,) = rows(data, tmp_path)[:1]
    image = np.asarray(render_sheet([row], data.classes, cell=192))
    top = 8 + 22  # the gap and the title
    for i, sample in enumerate(row.samples):
        for box, label in zip(sample.boxes, sample.labels, strict=True):
            x, y = 8 + i * 200 + round(float(box[0]) * 2) + 6, top + round(float(box[1]) * 2) - 1
            assert "#" + image[y, x].tobytes().hex() == colour(int(label))


def run(*words: str | Path) -> int:
    return cli.run(["data", *map(str, words)])


def test_preview_of_a_workspace_and_of_files(
    workspace: Workspace, blocks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources: list[tuple[str | Path, ...]] = [
        (workspace.path,),
        ("--annotations", blocks / "train.json", "--images", blocks / "images", "--px", "96", "--tile", "64"),
    ]
    for i, source in enumerate(sources):
        out = tmp_path / "sheets" / f"{i}.png"
        assert run("preview", *source, "--out", out, "--count", "4") == 0
        assert "is written" in capsys.readouterr().out
        with Image.open(out) as image:
            assert image.width == 8 + 3 * 248
        assert [p.name for p in out.parent.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"start": "warm", "training": {"encoder": "frozen"}}, {"flips", "turns"}),
        ({"start": "scratch", "training": {"encoder": "frozen"}}, {"flips", "turns", "zoom", "brightness"}),
        ({"start": "warm", "training": {"encoder": "train"}}, {"flips", "turns", "zoom", "brightness"}),
        (None, {"flips", "turns"}),
    ],
    ids=["frozen", "nothing to freeze", "trained", "files"],
)
def test_preview_shows_the_augmentations_in_effect(
    changes: dict[str, Any] | None,
    shown: set[str],
    workspace: Workspace,
    blocks: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Labelled files without a workspace are trained with the defaults, which freeze the encoder."""
    source: tuple[str | Path, ...] = ("--annotations", blocks / "train.json", "--images", blocks / "images")
    if changes is not None:
        settings = workspace.settings.model_dump()
        settings["detector"] |= {"model": ModelConfig().model_dump(), **changes}
        WorkspaceSettings.model_validate(settings).write(workspace.path / "dsmoe.yaml")
        source = (workspace.path,)
    previewed: list[TrainingConfig] = []

    def training_rows(views: Any, classes: Any, reader: Any, training: TrainingConfig, *_: Any) -> list[Row]:
        previewed.append(training)
        return augmentation_rows(views, classes, reader, training, columns=2)

    monkeypatch.setattr(contact_sheet, "training_rows", training_rows)
    assert run("preview", *source, "--out", tmp_path / "a.png", "--count", "2", "--px", "96") == 0
    (training,) = previewed
    assert {name for name in AUGMENTATIONS if getattr(training, name)} == shown


def test_workspace_without_labels_gives_its_test_set(workspace: Workspace) -> None:
    data = from_workspace(workspace.path)
    assert {p.image.key for p in data.images} == {p.image.key for p in workspace.test_set()}
    assert data.classes == tuple(COLOURS)


def test_anchors_print_sizes_fit_and_recommendation(blocks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = json.loads((blocks / "train.json").read_text())["annotations"]
    source = ("--annotations", blocks / "train.json")
    assert run("anchors", *source, "-k", "1", "--px", "96") == 0
    output = capsys.readouterr().out
    sides = [a["bbox"][2] for a in labels]
    assert f"{np.mean(sides):.1f}" in output  # at 96 px nothing is scaled
    assert f"{len(labels)} boxes" in output
    squares = [min(s, np.mean(sides)) ** 2 / max(s, np.mean(sides)) ** 2 for s in sides]
    assert f"{np.mean(squares):.3f}" in output
    assert "8 is sufficient" in output


def test_anchors_recommend_a_finer_head_or_tiles_for_small_boxes(
    blocks: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coarse = ModelConfig(head_strides=(8, 16))
    monkeypatch.setattr(
        labelled_data,
        "from_files",
        lambda labels, images, _, source: from_files(labels, images, coarse, source),
    )
    content = json.loads((blocks / "train.json").read_text())
    for image in content["images"]:
        image |= {"width": 960, "height": 960}
    (tmp_path / "large.json").write_text(json.dumps(content))
    assert run("anchors", "--annotations", tmp_path / "large.json") == 0
    output = capsys.readouterr().out
    assert "stride 4 (--tiny-head" in output
    assert "480 px" in output
    assert run("anchors", "--annotations", tmp_path / "large.json", "--tile", "480") == 0
    output = capsys.readouterr().out
    assert "480 px" in output
    assert "--tiny-head" not in output


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (("preview", "--out", "sheet.gif"), "sheet.gif"),
        (("anchors", "boards", "--annotations", "x.json"), "--annotations"),
        (("anchors", "--images", "x"), "--images"),
        (("anchors", "--annotations", "gone.json"), "gone.json"),
        (("anchors", "{blocks}", "--px", "96"), "dsmoe.yaml"),
        (("anchors", "--annotations", "{blocks}/train.json", "--px", "100"), "image_px"),
        (
            ("preview", "--annotations", "alone.json", "--out", "a.png"),
            "train-0",
        ),
        (("anchors", "--annotations", "{empty}"), "{empty}"),
    ],
)
def test_invalid_arguments_are_one_line(
    arguments: tuple[str, ...],
    value: str,
    blocks: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    empty = json.loads((blocks / "train.json").read_text()) | {"annotations": []}
    (tmp_path / "empty.json").write_text(json.dumps(empty))
    shutil.copy(blocks / "train.json", tmp_path / "alone.json")
    assert run(*(w.format(blocks=blocks, empty="empty.json") for w in arguments)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert value.format(blocks=blocks, empty="empty.json") in line


def test_labels_for_another_image_size_are_refused(
    blocks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads((blocks / "train.json").read_text())
    for image in content["images"]:
        image["width"] = 97
    (tmp_path / "wrong.json").write_text(json.dumps(content))
    source = ("--annotations", tmp_path / "wrong.json", "--images", blocks / "images")
    assert run("preview", *source, "--out", tmp_path / "a.png") == 2
    message = capsys.readouterr().err
    assert "97x96" in message
    assert "96x96" in message
    assert not (tmp_path / "a.png").exists()


def test_synthetic_set_is_made_and_can_be_previewed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["data", "synthesize", "glass", "--train", "3", "--val", "2", "--px", "96", "--out"]
    folder = tmp_path / "bottles"
    for _ in range(2):
        assert cli.run([*command, str(folder)]) == 0
        assert capsys.readouterr().out.endswith(f"{folder}: 3 images in train.json, 2 in val.json\n")
    assert len(json.loads((folder / "train.json").read_text())["categories"]) == 18
    assert len(list((folder / "images").iterdir())) == 5
    preview = ["data", "preview", "--annotations", str(folder / "train.json"), "--images"]
    sheet_path = tmp_path / "sheet.png"
    assert cli.run([*preview, str(folder / "images"), "--out", str(sheet_path), "--count", "3"]) == 0
    assert sheet_path.is_file()


def test_synthesize_refuses_a_folder_with_other_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert cli.run(["data", "synthesize", "pcb", "--out", str(tmp_path)]) == 2
    assert "thesis.txt" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
