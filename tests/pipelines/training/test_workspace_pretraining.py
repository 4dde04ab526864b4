"""``dsmoe pretrain --workspace``: initial weights, the settings of the workspace, and refused options."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from dsmoe_core.build import build
from dsmoe_core.config import ModelConfig
from dsmoe_core.data.letterbox_cache import CacheConfig
from dsmoe_core.mobile_sam import weights as mobile_sam
from dsmoe_core.warm_start import checkpoint, pretraining
from pipelines import cli
from pipelines.detectors.ds_moe import dsmoe_backend
from pipelines.settings.environment import Environment
from pipelines.training.workspace_pretraining import FILE, INITIAL_FILE
from pipelines.workspace.workspace import Workspace
from tests.dsmoe_core.mobile_sam.original import random_weights

Run = Callable[..., str]


@pytest.fixture(autouse=True)
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of pretrained weights, of this test alone."""
    monkeypatch.setenv("DSMOE_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command; returns its output, or its error message of one line where it is refused."""

    def command(*arguments: object, code: int = 0) -> str:
        assert cli.run([*map(str, arguments)]) == code
        captured = capsys.readouterr()
        if code == 0:
            return captured.out
        assert captured.err.count("\n") == 1
        return captured.err

    return command


@pytest.fixture
def create(tmp_path: Path, blocks: Path, run: Run) -> Callable[..., Path]:
    """Make a workspace of 17 images of 96 px with these options of ``dsmoe init``."""

    def make(*options: object) -> Path:
        files = ("--images", blocks / "images", "--classes", "rust", "--px", "64")
        run("init", tmp_path / "w", *files, *options)
        return tmp_path / "w"

    return make


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that pretrainings start from, in their order."""
    files: list[Path] = []
    real = pretraining.load_initial_encoder
    monkeypatch.setattr(
        pretraining, "load_initial_encoder", lambda n, path: (files.append(path), real(n, path))
    )
    return files


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments of pretrainings, with the class of their objective as ``objective``."""
    calls: list[dict[str, Any]] = []
    real = pretraining.pretrain_encoder

    def recording(make_objective: Callable[[Any], Any], **arguments: Any) -> Any:
        call = {**arguments}
        calls.append(call)

        def make(network: Any) -> Any:
            objective = make_objective(network)
            call["objective"] = type(objective).__name__
            return objective

        return real(make, **arguments)

    monkeypatch.setattr(pretraining, "pretrain_encoder", recording)
    return calls


def pretrain(run: Run, workspace: Path, *options: object, code: int = 0) -> str:
    return run("pretrain", "--workspace", workspace, "--images-seen", "4", *options, code=code)


def detector_settings(workspace: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((workspace / "dsmoe.yaml").read_text())["detector"])


def change_settings(workspace: Path, **changes: Any) -> None:
    """Change settings of the detector, as a user does in an editor."""
    file = workspace / "dsmoe.yaml"
    raw = yaml.safe_load(file.read_text())
    raw["detector"] |= changes
    file.write_text(yaml.safe_dump(raw))


def initial_file(workspace: Path) -> Path | None:
    """The file that a training of the workspace starts from."""
    with Workspace.open(workspace) as opened:
        return dsmoe_backend(opened, Environment.read())._encoder_from


def user_file(folder: Path, seed: int = 0) -> Path:
    """A warm start that the user made elsewhere."""
    torch.manual_seed(seed)
    path = folder / "mine.safetensors"
    checkpoint.save_warm_start(path, build(ModelConfig()), size="nano", licence="mine", made={})
    return path


@pytest.mark.parametrize(
    ("objective", "recipe", "name"),
    [
        ("masked", "SimMIM", "MaskedImages"),
        ("distill", "features of EfficientNet-Lite0", "FeatureDistillation"),
    ],
)
def test_workspace_starts_from_what_its_own_images_taught(
    objective: str,
    recipe: str,
    name: str,
    create: Callable[..., Path],
    run: Run,
    trainings: list[dict[str, Any]],
    tmp_path: Path,
) -> None:
    workspace = create("--start", "scratch")
    pretrain(run, workspace, "--objective", objective)
    path = workspace / FILE
    settings = detector_settings(workspace)
    assert (settings["start"], settings["warm_start"]) == ("warm", "warm-start.safetensors")
    assert initial_file(workspace) == path
    card = checkpoint.read_card(path)
    assert card.made["start"] == "scratch"
    assert (card.made["unlabelled"]["recipe"], card.made["unlabelled"]["images"]) == (recipe, 17)
    assert [call["objective"] for call in trainings] == [name]
    assert str(tmp_path) not in json.dumps(card.model_dump())
    written = path.stat().st_mtime_ns
    pretrain(run, workspace, "--objective", objective)
    assert path.stat().st_mtime_ns == written
    pretrain(run, workspace, "--objective", objective, "--seed", "1")
    assert checkpoint.read_card(path).sha256 != card.sha256
    assert [call["encoder_from"] for call in trainings] == [None, None]


def test_pretraining_starts_from_mobile_sam_where_the_workspace_does(
    create: Callable[..., Path], run: Run, loaded: list[Path], weights: Path
) -> None:
    workspace = create("--size", "base", "--start", "mobile-sam")
    assert "dsmoe weights mobile-sam" in pretrain(run, workspace, code=2)
    assert detector_settings(workspace)["start"] == "mobile-sam"
    file = weights / mobile_sam.FILE
    weights.mkdir()
    mobile_sam.write_weights(*mobile_sam.convert(random_weights()), file, {"from": "the test"})
    loaded.clear()
    assert str(file) in pretrain(run, workspace)
    assert checkpoint.read_card(workspace / FILE).made["start"] == "mobile-sam"
    written = (workspace / FILE).stat().st_mtime_ns
    pretrain(run, workspace)
    assert (workspace / FILE).stat().st_mtime_ns == written
    assert loaded == [file]
    assert initial_file(workspace) == workspace / FILE


def test_pretrainings_start_from_the_file_of_the_user_also_when_it_is_gone(
    create: Callable[..., Path], run: Run, loaded: list[Path], tmp_path: Path
) -> None:
    mine = user_file(tmp_path)
    digest = checkpoint.read_card(mine).sha256
    workspace = create("--start", mine)
    pretrain(run, workspace)
    for file in (mine, checkpoint.card_path(mine)):
        file.unlink()
    written = (workspace / FILE).stat().st_mtime_ns
    pretrain(run, workspace)
    assert (workspace / FILE).stat().st_mtime_ns == written
    pretrain(run, workspace, "--seed", "1")
    assert (workspace / FILE).stat().st_mtime_ns != written
    assert checkpoint.read_card(workspace / FILE).made["start"] == digest
    assert loaded == [workspace / INITIAL_FILE] * 2


def test_another_file_of_the_user_replaces_the_start(
    create: Callable[..., Path], run: Run, tmp_path: Path
) -> None:
    workspace = create("--start", "scratch")
    pretrain(run, workspace)
    mine = user_file(tmp_path)
    change_settings(workspace, warm_start=str(mine))
    pretrain(run, workspace)
    assert checkpoint.read_card(workspace / FILE).made["start"] == checkpoint.read_card(mine).sha256
    assert detector_settings(workspace)["warm_start"] == FILE


def test_pretrainings_start_from_the_packaged_warm_start(
    create: Callable[..., Path], run: Run, loaded: list[Path]
) -> None:
    workspace = create("--start", "warm")
    for seed in (0, 1):
        pretrain(run, workspace, "--seed", seed)
    assert loaded == [checkpoint.shipped_path("nano")] * 2
    assert not (workspace / INITIAL_FILE).exists()


def test_a_missing_packaged_warm_start_is_not_replaced_by_random_weights(
    create: Callable[..., Path], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = create("--start", "warm")
    monkeypatch.setattr(checkpoint, "_FOLDER", tmp_path / "package")
    pretrain(run, workspace, code=2)
    assert not (workspace / FILE).exists()


@pytest.mark.parametrize("start", ["scratch", "file"])
def test_a_moved_workspace_starts_from_its_own_file(
    start: str, create: Callable[..., Path], run: Run, tmp_path: Path
) -> None:
    workspace = create("--start", user_file(tmp_path) if start == "file" else start)
    pretrain(run, workspace)
    moved = workspace.rename(tmp_path / "moved")
    assert initial_file(moved) == moved / FILE
    written = (moved / FILE).stat().st_mtime_ns
    pretrain(run, moved)
    assert (moved / FILE).stat().st_mtime_ns == written


def test_a_damaged_warm_start_is_made_again_from_the_same_start(
    create: Callable[..., Path], run: Run
) -> None:
    workspace = create("--start", "scratch")
    pretrain(run, workspace)
    path, card = workspace / FILE, checkpoint.read_card(workspace / FILE)
    path.write_bytes(path.read_bytes()[:-1])
    pretrain(run, workspace)
    assert checkpoint.read_card(path) == card
    checkpoint.card_path(path).unlink()
    assert "detector.start" in pretrain(run, workspace, code=2)
    change_settings(workspace, start="scratch", warm_start=None)
    pretrain(run, workspace)
    assert checkpoint.read_card(path) == card


@pytest.mark.parametrize(("gigabytes", "max_bytes"), [(0, None), (2, 2_000_000_000)])
def test_tiles_and_image_cache_are_those_of_the_workspace(
    gigabytes: int,
    max_bytes: int | None,
    create: Callable[..., Path],
    run: Run,
    trainings: list[dict[str, Any]],
) -> None:
    workspace = create("--start", "scratch")
    model = {**detector_settings(workspace)["model"], "tiles": {"px": 64}}
    change_settings(workspace, model=model, image_cache_gb=gigabytes)
    pretrain(run, workspace)
    squares = workspace / "cache" / "squares"
    [call] = trainings
    assert call["cache"] == (None if max_bytes is None else CacheConfig(squares, max_bytes))
    assert squares.exists() is (max_bytes is not None)
    assert call["model"].tiles.px == 64
    made = checkpoint.read_card(workspace / FILE).made["unlabelled"]
    assert (made["images"], made["views"]) == (17, 17 * 5)  # four tiles, and the whole image


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (("--size", "nano"), ("--size",)),
        (("--px", "320"), ("--px",)),
        (("--synthetic", "0"), ("--synthetic",)),
        (("--images", "photos"), ("--images",)),
        (("--work", "work"), ("--work",)),
        (("--px", "64", "--synthetic", "3"), ("--px", "--synthetic")),
        (("--minutes", "1", "--images-seen", "5"), ("--minutes", "--images-seen")),
    ],
    ids=" ".join,
)
def test_options_without_effect_on_a_workspace_are_refused(
    options: tuple[str, ...], names: tuple[str, ...], run: Run, tmp_path: Path
) -> None:
    message = run("pretrain", "--workspace", tmp_path, *options, code=2)
    assert all(name in message for name in names)


def test_pretraining_needs_a_file_or_a_workspace(run: Run, tmp_path: Path) -> None:
    for arguments in ((), (tmp_path / "w.safetensors", "--workspace", tmp_path)):
        run("pretrain", *arguments, code=2)


def test_another_encoder_is_refused_with_the_command_that_makes_this_one(
    create: Callable[..., Path], run: Run
) -> None:
    workspace = create("--start", "imagenet-lite")
    message = pretrain(run, workspace, code=2)
    assert "efficientnet-lite0" in message
    assert "dsmoe init --start warm" in message
    assert detector_settings(workspace)["start"] == "imagenet-lite"
