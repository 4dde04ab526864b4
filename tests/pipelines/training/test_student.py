"""``dsmoe distill``: the student's network, what it shares with its teacher, and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from tiny import SMALL, HashEncoder

from dsmoe_core.build import build
from dsmoe_core.checkpoint import WEIGHTS, load_model, read_card, read_tensors, save_model
from dsmoe_core.config import ModelConfig, Preprocessing, Tiles
from dsmoe_core.efficientnet.weights import FILE as IMAGENET_LITE
from dsmoe_core.errors import ModelError, SettingsError
from dsmoe_core.schema import ClassText, Vocabulary
from dsmoe_core.warm_start.checkpoint import load_initial_encoder
from pipelines import cli
from pipelines.detectors.ds_moe import DSMoEBackend, dsmoe_backend, packaged_start
from pipelines.settings.detector import DetectorSettings
from pipelines.settings.environment import Environment
from pipelines.settings.workspace import WorkspaceSettings
from pipelines.training.student import StudentOptions, parameter_count, student_network
from pipelines.workspace.workspace import Workspace
from tests.pipelines.blocks import COLOURS

Captured = pytest.CaptureFixture[str]
LITE: dict[str, Any] = {"backbone": "efficientnet-lite0"}
BOOK = Vocabulary(tuple(ClassText(name, f"a {name} block") for name in COLOURS))


def write_teacher(folder: Path, book: Vocabulary = BOOK, **changes: Any) -> Path:
    """Write a larger network with random weights as a model."""
    config = SMALL.model_copy(update={"experts": 6, "top_k": 6, "head_strides": (4, 8), **changes})
    torch.manual_seed(0)
    save_model(folder, build(config), config, book, {"text_encoder": "hash"})
    return folder


@pytest.fixture
def small_workspace(workspace: Workspace) -> Path:
    """Folder of a workspace with a small network as detector."""
    settings = workspace.settings.model_dump()
    settings["detector"] |= {"kind": "ds-moe", "model": SMALL.model_dump()}
    settings["detector"]["training"] |= {"batch": 2, "precision": "32-true"}
    WorkspaceSettings.model_validate(settings).write(workspace.path / "dsmoe.yaml")
    return workspace.path


def test_student_has_the_input_and_the_cells_of_its_teacher(tmp_path: Path) -> None:
    shared = {"image_px": 128, "preprocessing": Preprocessing(gamma=1.5), "tiles": Tiles(px=96)}
    teacher = write_teacher(tmp_path / "t", **shared)
    student = student_network(SMALL, teacher, StudentOptions(experts=3))
    expected = SMALL.model_copy(update={**shared, "head_strides": (4, 8), "experts": 3, "top_k": 2})
    assert student == expected
    nano = student_network(SMALL, teacher, StudentOptions(size="nano", top_k=1))
    assert (nano.width, nano.experts, nano.top_k) == (ModelConfig().width, ModelConfig().experts, 1)
    assert student_network(ModelConfig(), teacher, StudentOptions(experts=3)).top_k == 3


@pytest.mark.parametrize("size", ["nano", "base"])
def test_size_keeps_the_backbone(size: Literal["nano", "base"], tmp_path: Path) -> None:
    teacher = write_teacher(tmp_path / "t")
    student = student_network(SMALL.model_copy(update=LITE), teacher, StudentOptions(size=size))
    assert (student.size, student.backbone) == (size, LITE["backbone"])
    assert student.width == ModelConfig.of_size(size).width
    assert student_network(SMALL, teacher, StudentOptions(size=size)).backbone == "tiny-vit"


def test_without_a_workspace_the_student_is_the_teachers_network_with_imagenet_weights(
    tmp_path: Path, blocks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And with a model to start from, it is that network with its weights."""
    monkeypatch.setattr(DSMoEBackend, "text_encoder", HashEncoder())
    teacher = write_teacher(tmp_path / "teacher", **LITE)
    files = ["--annotations", str(blocks / "train.json"), "--images", str(blocks / "images")]
    command = ["--teacher", str(teacher), *files, "--images-seen", "4"]
    first, second = tmp_path / "first", tmp_path / "second"
    assert cli.run(["distill", str(first), *command, "--experts", "3"]) == 0
    card = read_card(first)
    assert card.config == student_network(read_card(teacher).config, teacher, StudentOptions(experts=3))
    assert card.config.backbone == LITE["backbone"]
    weights, _ = read_tensors(first / WEIGHTS)
    imagenet, _ = read_tensors(Environment.read().weights / IMAGENET_LITE)
    assert all(
        torch.equal(weights[f"image_encoder.backbone.features.{name}"], tensor)
        for name, tensor in imagenet.items()
    )
    assert cli.run(["distill", str(second), *command, "--from", str(first)]) == 0
    assert read_card(second).config == card.config
    for folder in (first, second):
        training = json.loads((folder / "model.json").read_text())["training"]
        assert training["encoder"] == "frozen"


@pytest.mark.parametrize(
    ("model", "start"),
    [
        (ModelConfig(**LITE), "imagenet-lite"),
        (ModelConfig.of_size("base").model_copy(update=LITE), "imagenet-lite"),
        (ModelConfig(**LITE, ablation="B"), "scratch"),
        (ModelConfig(head_strides=(8,), experts=4), "warm"),
        (ModelConfig(width=32), "scratch"),
        (ModelConfig.of_size("base"), "scratch"),
        (ModelConfig(ablation="A"), "scratch"),
    ],
)
def test_packaged_weights_fit_the_network(model: ModelConfig, start: str) -> None:
    assert packaged_start(model) == start
    backend = dsmoe_backend(None, Environment.read({}), model=model, start=packaged_start(model))
    if start == "warm":
        load_initial_encoder(build(model), backend._encoder_from or Path())


def test_impossible_student_is_refused(tmp_path: Path) -> None:
    teacher = write_teacher(tmp_path / "t")
    with pytest.raises(SettingsError, match="experts is 2"):
        student_network(SMALL, teacher, StudentOptions(experts=2))
    with pytest.raises(ModelError, match="complete model"):
        student_network(SMALL, tmp_path, StudentOptions())


def test_student_is_trained_and_its_parameters_are_printed(
    tmp_path: Path, blocks: Path, small_workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(DSMoEBackend, "text_encoder", HashEncoder())
    teacher = write_teacher(tmp_path / "teacher")
    files = ["--annotations", str(blocks / "train.json"), "--images", str(blocks / "images")]
    command = ["distill", str(tmp_path / "out"), "--teacher", str(teacher), *files, "--images-seen", "4"]
    command += ["--workspace", str(small_workspace), "--experts", "3"]
    assert cli.run(command) == 0
    shown = capsys.readouterr().out
    card = json.loads((tmp_path / "out" / "model.json").read_text())
    assert {"teacher_class", "teacher_box"} <= card["losses"].keys()
    assert (card["config"]["experts"], card["config"]["head_strides"]) == (3, [4, 8])
    student, other = (load_model(tmp_path / name).network for name in ("out", "teacher"))
    counts = [sum(p.numel() for p in network.parameters()) for network in (student, other)]
    assert [parameter_count(tmp_path / name) for name in ("out", "teacher")] == counts
    assert all(f"{count:,}" in shown for count in counts)


@pytest.mark.parametrize("book", [None, Vocabulary((ClassText("crack", "a crack"),))])
def test_missing_teacher_and_one_of_other_classes_are_refused(
    tmp_path: Path,
    blocks: Path,
    small_workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
    book: Vocabulary | None,
) -> None:
    monkeypatch.setattr(DSMoEBackend, "text_encoder", HashEncoder())
    teacher = tmp_path / "teacher"
    if book is not None:
        write_teacher(teacher, book)
    files = ["--annotations", str(blocks / "train.json"), "--images", str(blocks / "images")]
    command = ["distill", str(tmp_path / "out"), "--teacher", str(teacher), *files]
    assert cli.run([*command, "--workspace", str(small_workspace)]) == 2
    message = capsys.readouterr().err
    assert str(teacher) in message
    assert message.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_student_of_another_size_starts_from_the_weights_of_its_size(workspace: Workspace) -> None:
    settings = DetectorSettings(model=ModelConfig.of_size("base"), start="mobile-sam")
    workspace.settings = workspace.settings.model_copy(update={"detector": settings})
    environment = Environment.read({})
    same = dsmoe_backend(workspace, environment, model=settings.model)
    assert same._encoder_from is not None
    assert same._encoder_from.parent == environment.weights
    nano = dsmoe_backend(workspace, environment, model=ModelConfig())
    assert nano._encoder_from is not None
    assert nano._encoder_from.name == "nano.safetensors"
    without_encoder = ModelConfig(ablation="A")
    assert dsmoe_backend(workspace, environment, model=without_encoder)._encoder_from is None
    lite = dsmoe_backend(workspace, environment, model=ModelConfig(**LITE))
    assert lite._encoder_from == environment.weights / IMAGENET_LITE
