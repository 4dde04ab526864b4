"""``dsmoe train``: training on labelled files, in one process and under torchrun."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import SMALL, HashEncoder, Killed

from dsmoe_core.build import build
from dsmoe_core.checkpoint import WEIGHTS, load_model, read_card, read_tensors, save_model
from dsmoe_core.config import ModelConfig
from dsmoe_core.data import coco
from dsmoe_core.data.annotation_set import AnnotationSet, ImageAnnotations
from dsmoe_core.schema import Annotation, Box, ClassText, Vocabulary
from dsmoe_core.training.distributed import ProcessGroup
from dsmoe_core.training.frozen_encoder import FrozenEncoder
from pipelines import cli
from pipelines.detectors.ds_moe import DSMoEBackend
from pipelines.progress import SilentProgress
from pipelines.settings.environment import Environment
from pipelines.settings.workspace import WorkspaceSettings
from pipelines.training.standalone_training import CACHE, TrainingFiles, train_from_files
from pipelines.workspace.workspace import Workspace
from tests.pipelines.blocks import COLOURS

ROOT = Path(__file__).resolve().parents[3]
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def small_workspace(workspace: Workspace) -> Path:
    """Folder of a workspace with a small network as detector."""
    path = workspace.path / "dsmoe.yaml"
    settings = workspace.settings.model_dump()
    settings["detector"] |= {"kind": "ds-moe", "model": SMALL.model_dump()}
    settings["detector"]["training"] |= {"batch": 2, "precision": "32-true"}
    WorkspaceSettings.model_validate(settings).write(path)
    return workspace.path


def arguments(out: Path, blocks: Path, small_workspace: Path, *more: str) -> list[str]:
    files = ["--annotations", str(blocks / "train.json"), "--images", str(blocks / "images")]
    return ["train", str(out), *files, "--workspace", str(small_workspace), "--images-seen", "4", *more]


def test_trains_once_and_starts_from_a_given_model(
    tmp_path: Path, blocks: Path, small_workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(DSMoEBackend, "text_encoder", HashEncoder())
    assert cli.run(arguments(tmp_path / "first", blocks, small_workspace, "--seed", "7")) == 0
    output = capsys.readouterr().out
    assert "2 steps on 12 images" in output
    assert f"precision 32-true, {torch.get_num_threads()} threads" in output
    card = json.loads((tmp_path / "first" / "model.json").read_text())
    assert (card["training"]["seed"], card["training"]["batch"], card["config"]["width"]) == (7, 2, 32)
    weights = tmp_path / "first" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    assert cli.run(arguments(tmp_path / "first", blocks, small_workspace, "--seed", "7")) == 0
    assert weights.stat().st_mtime_ns == before
    assert (
        cli.run(arguments(tmp_path / "second", blocks, small_workspace, "--from", str(tmp_path / "first")))
        == 0
    )
    assert (tmp_path / "second" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("options", "backbone", "encoder"),
    [
        ([], "efficientnet-lite0", "frozen"),
        (["--start", "scratch"], "tiny-vit", "train"),
        (["--start", "warm"], "tiny-vit", "frozen"),
    ],
)
def test_without_a_workspace_training_starts_as_in_a_new_workspace(
    options: list[str],
    backbone: str,
    encoder: str,
    tmp_path: Path,
    blocks: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
) -> None:
    monkeypatch.setattr(DSMoEBackend, "text_encoder", HashEncoder())
    files = ["--annotations", str(blocks / "train.json"), "--images", str(blocks / "images")]
    assert cli.run(["train", str(tmp_path / "out"), *files, "--images-seen", "4", *options]) == 0
    card = json.loads((tmp_path / "out" / "model.json").read_text())
    assert (card["config"]["backbone"], card["training"]["encoder"]) == (backbone, encoder)
    assert (options[1] if options else "imagenet-lite") in capsys.readouterr().out
    more = ["train", str(tmp_path / "more"), *files, "--images-seen", "4", "--from", str(tmp_path / "out")]
    assert cli.run(more) == 0
    continued = json.loads((tmp_path / "more" / "model.json").read_text())
    assert continued["config"] == card["config"]
    assert continued["training"]["encoder"] == encoder
    assert cli.run([*more, "--start", "warm"]) == 2


def start_model(folder: Path, config: ModelConfig, encoder: str) -> Path:
    """The folder of an untrained model that names this setting for the encoder."""
    vocabulary = Vocabulary(tuple(ClassText(name, name) for name in COLOURS))
    card = {"text_encoder": HashEncoder.name, "training": {"encoder": encoder}}
    save_model(folder, build(config), config, vocabulary, card)
    return folder


@pytest.mark.parametrize("backbone", ["efficientnet-lite0", "tiny-vit"])
@pytest.mark.parametrize("encoder", ["train", "frozen"])
def test_a_model_is_trained_on_with_its_setting_for_the_encoder(
    backbone: str, encoder: str, tmp_path: Path, blocks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DSMoEBackend, "text_encoder", HashEncoder())
    config = ModelConfig.model_validate({**SMALL.model_dump(), "backbone": backbone})
    start = start_model(tmp_path / "start", config, encoder)
    files = ["--annotations", str(blocks / "train.json"), "--images", str(blocks / "images")]
    given = ["train", str(tmp_path / "out"), *files, "--images-seen", "4", "--from", str(start)]
    assert cli.run(given) == 0
    card = read_card(tmp_path / "out")
    assert (card.config.backbone, card.encoder) == (backbone, encoder)
    before, after = (read_tensors(folder / WEIGHTS)[0] for folder in (start, tmp_path / "out"))
    names = [name for name in before if name.startswith("image_encoder.backbone.")]
    assert all(torch.equal(before[name], after[name]) for name in names) is (encoder == "frozen")


class KilledInTraining(SilentProgress):
    """Kills the training in its first step."""

    def status(self, text: str) -> None:
        self.activity = text

    def advance(self, done: int, total: int, note: str = "") -> None:
        if self.activity == "training":
            raise Killed


def test_an_interrupted_training_without_a_workspace_continues_with_its_features(
    tmp_path: Path, blocks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DSMoEBackend, "text_encoder", HashEncoder())
    computed: list[int] = []
    compute = FrozenEncoder._compute

    def counting(encoder: FrozenEncoder, pixels: Any) -> Any:
        computed.append(1)
        return compute(encoder, pixels)

    monkeypatch.setattr(FrozenEncoder, "_compute", counting)
    start = start_model(tmp_path / "start", SMALL, "frozen")
    labels, out = coco.read(blocks / "train.json"), tmp_path / "out"
    files = TrainingFiles(
        labels, blocks / "images", out, start_from=str(start), changes=(("images_seen", 4),)
    )
    with pytest.raises(Killed):
        train_from_files(files, None, Environment.read({}), KilledInTraining())
    assert (out / CACHE).is_dir()
    assert len(computed) == 4
    for _ in range(2):
        summary = train_from_files(files, None, Environment.read({}), SilentProgress())
        assert summary["steps"] == 1
        assert len(computed) == 4
        assert {path.name for path in out.iterdir()} == {
            "known_features.safetensors",
            "model.json",
            "model.safetensors",
        }
        assert load_model(out).config == read_card(start).config


def test_augmentations_are_not_chosen_in_several_processes(
    tmp_path: Path,
    blocks: Path,
    small_workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
) -> None:
    monkeypatch.setattr(ProcessGroup, "current", lambda: ProcessGroup(rank=1, count=2))
    assert cli.run(arguments(tmp_path / "out", blocks, small_workspace, "--choose-augmentation")) == 2
    assert "--choose-augmentation" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_second_start_is_refused(
    tmp_path: Path, blocks: Path, small_workspace: Path, capsys: Captured
) -> None:
    given = arguments(tmp_path / "out", blocks, small_workspace, "--start", "warm")
    assert cli.run(given) == 2
    assert "--start is warm" in capsys.readouterr().err


def test_unknown_start_model_is_refused(
    tmp_path: Path, blocks: Path, small_workspace: Path, capsys: Captured
) -> None:
    assert cli.run(arguments(tmp_path / "out", blocks, small_workspace, "--from", "nowhere")) == 2
    message = capsys.readouterr().err
    assert "nowhere" in message
    assert message.count("\n") == 1


def deep_data(folder: Path, bright: int) -> Path:
    """Two 16-bit images, one of them with a bright pixel, and labels of both."""
    (folder / "images").mkdir(parents=True)
    for name, brightest in (("a.png", 2000), ("b.png", bright)):
        values = np.full((96, 96), 2000, np.uint16)
        values[0, 0] = brightest
        Image.fromarray(values).save(folder / "images" / name)
    box = (Annotation(Box(10, 10, 40, 40), next(iter(COLOURS))),)
    entries = tuple(ImageAnnotations(name, 96, 96, box) for name in ("a.png", "b.png"))
    coco.write(AnnotationSet(tuple(COLOURS), entries), folder / "train.json")
    return folder


def test_model_keeps_the_intensity_scale_of_its_training(
    tmp_path: Path, small_workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """Predictions and evaluations use it, whatever their own images contain."""
    monkeypatch.setattr(DSMoEBackend, "text_encoder", HashEncoder())
    data, brighter = deep_data(tmp_path / "data", 3000), deep_data(tmp_path / "brighter", 30_000)
    model = tmp_path / "model"
    assert cli.run(arguments(model, data, small_workspace)) == 0
    assert json.loads((model / "model.json").read_text())["intensity_max"] == 4095
    assert "4095" in capsys.readouterr().out
    predict = [
        "predict",
        str(model),
        "--images",
        str(brighter / "images"),
        "--json",
        str(tmp_path / "p.json"),
    ]
    assert cli.run(predict) == 0
    assert json.loads((tmp_path / "p.json").read_text())["info"]["intensity_max"] == 4095
    assert "b.png" in capsys.readouterr().out  # brighter than the scale
    assert cli.run([*predict, "--intensity-max", "65535"]) == 0
    assert json.loads((tmp_path / "p.json").read_text())["info"]["intensity_max"] == 65_535
    evaluate = ["evaluate", str(model), "--annotations", str(brighter / "train.json"), "--resamples", "100"]
    evaluate += ["--images", str(brighter / "images"), "--json", str(tmp_path / "e.json")]
    assert cli.run(evaluate) == 0
    metrics = json.loads((tmp_path / "e.json").read_text())["data"]
    assert metrics["clipped"] == ["b.png"]
    second = tmp_path / "second"
    files = ["--annotations", str(brighter / "train.json"), "--images", str(brighter / "images")]
    given = ["train", str(second), *files, "--workspace", str(small_workspace), "--images-seen", "4"]
    assert cli.run([*given, "--from", str(model)]) == 0
    assert json.loads((second / "model.json").read_text())["intensity_max"] == 4095
    assert cli.run([*given[:1], str(tmp_path / "third"), *given[2:], "--intensity-max", "16383"]) == 0
    assert json.loads((tmp_path / "third" / "model.json").read_text())["intensity_max"] == 16_383
    assert cli.run([*evaluate, "--against", str(tmp_path / "third")]) == 2
    assert "16383" in capsys.readouterr().err
    assert cli.run([*evaluate, "--against", str(tmp_path / "third"), "--intensity-max", "4095"]) == 0


def test_images_of_the_test_set_are_refused(
    tmp_path: Path, blocks: Path, small_workspace: Path, capsys: Captured
) -> None:
    files = ["--annotations", str(blocks / "val.json"), "--images", str(blocks / "images")]
    assert cli.run(["train", str(tmp_path / "out"), *files, "--workspace", str(small_workspace)]) == 2
    assert "val-000.png" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_torchrun_trains_in_two_processes_and_writes_once(
    tmp_path: Path, blocks: Path, small_workspace: Path
) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, "-m", "pipelines.cli", *arguments(tmp_path / "out", blocks, small_workspace)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("2 steps on 12 images") == 1
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "import.json",
        "known_features.safetensors",
        "model.json",
        "model.safetensors",
    }
