"""``dsmoe pretrain``: the warm start and its card, resuming, and workspaces that start from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import HashEncoder

from dsmoe_core.config import ModelConfig, TrainingConfig
from dsmoe_core.data.synthetic import generator_version
from dsmoe_core.errors import DsmoeError, PrerequisiteError, SettingsError
from dsmoe_core.warm_start import checkpoint
from pipelines import cli
from pipelines.detectors.ds_moe import dsmoe_backend
from pipelines.progress import SilentProgress
from pipelines.settings.detector import DetectorSettings
from pipelines.settings.environment import Environment
from pipelines.settings.validation import validate_settings
from pipelines.training import pretrain
from pipelines.training.pretrain import WarmStartPlan, synthetic_vocabulary
from pipelines.workspace.workspace import Workspace

SMALL = ("--px", "64", "--images-seen", "8")


@pytest.fixture(autouse=True)
def small_and_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few images, and a text encoder without a network."""
    monkeypatch.setattr("pipelines.detectors.ds_moe.make_text_encoder", lambda text, key: HashEncoder())
    monkeypatch.setattr(pretrain, "HELD_OUT", 2)
    monkeypatch.setattr(pretrain, "SHARD_IMAGES", 2)


def run(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    assert cli.run([*map(str, arguments)]) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err


def test_synthetic_vocabulary_has_descriptions_of_all_kinds() -> None:
    vocabulary = synthetic_vocabulary()
    assert len(vocabulary) == 28
    assert all(len(text.description.split()) > 8 and len(text.paraphrases) >= 4 for text in vocabulary)


@pytest.mark.slow
def test_warm_start_is_made_from_synthetic_images_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, work = tmp_path / "warm.safetensors", tmp_path / "work"
    command = ("pretrain", out, *SMALL, "--synthetic", "9", "--work", work)
    output = run(capsys, *command)
    assert "glass: mAP@.5 0." in output
    assert str(out) in output
    card = checkpoint.read_card(out)
    assert (card.size, card.licence) == ("nano", "Apache-2.0")
    assert card.made["generator"] == generator_version()
    assert (card.made["seed"], card.made["synthetic"], card.made["images_seen"]) == (42, 9, 8)
    assert set(card.made["held_out"]) == {"pcb", "aluminium", "glass"}
    assert str(tmp_path) not in json.dumps(card.model_dump())
    written = out.stat().st_mtime_ns
    run(capsys, *command)
    assert out.stat().st_mtime_ns == written
    out.write_bytes(out.read_bytes()[:-1])
    run(capsys, *command)  # written again from the finished training
    assert checkpoint.read_card(out).sha256 == card.sha256


def test_unlabelled_images_are_learned_first(
    blocks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    real = checkpoint.load_initial_encoder
    monkeypatch.setattr(
        "dsmoe_core.train.load_initial_encoder", lambda n, path: (loaded.append(path.name), real(n, path))
    )
    out = tmp_path / "warm.safetensors"
    run(
        capsys,
        "pretrain",
        out,
        *SMALL,
        "--synthetic",
        "3",
        "--images",
        blocks / "images",
        "--work",
        tmp_path / "w",
    )
    assert loaded == ["masked.safetensors"]
    card = checkpoint.read_card(out)
    assert card.made["unlabelled"]["recipe"] == "SimMIM"
    assert card.made["unlabelled"]["images"] == len(list((blocks / "images").iterdir()))
    assert card.licence != "Apache-2.0"
    alone = tmp_path / "alone.safetensors"
    run(
        capsys,
        "pretrain",
        alone,
        *SMALL,
        "--synthetic",
        "0",
        "--images",
        blocks / "images",
        "--work",
        tmp_path / "w",
    )
    assert "held_out" not in checkpoint.read_card(alone).made


def test_interrupted_run_reuses_finished_shards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, work = tmp_path / "warm.safetensors", tmp_path / "work"
    real, written = pretrain.write_synthetic_set, []

    def killed(folder: Path, *rest: Any, **more: Any) -> None:
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(folder.name)
        real(folder, *rest, **more)

    def killed_again() -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(pretrain, "write_synthetic_set", killed)
    run(capsys, "pretrain", out, *SMALL, "--synthetic", "9", "--work", work, code=130)
    before = {p: p.stat().st_mtime_ns for p in work.rglob("train.json")}
    assert len(before) == 3
    monkeypatch.setattr(pretrain, "write_synthetic_set", real)
    monkeypatch.setattr(pretrain, "synthetic_vocabulary", killed_again)
    run(capsys, "pretrain", out, *SMALL, "--synthetic", "9", "--work", work, code=130)
    assert len(list(work.rglob("train.json"))) == 9
    assert {p: p.stat().st_mtime_ns for p in before} == before


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (("warm.pt",), "warm.pt"),
        (("w.safetensors", "--px", "100"), "px"),
        (("w.safetensors", "--synthetic", "0"), "--synthetic"),
        (("w.safetensors", "--images", "nowhere"), "nowhere"),
        (("w.safetensors", "--minutes", "1"), "--images"),
        (("w.safetensors", "--objective", "distill"), "--images"),
    ],
)
def test_invalid_arguments_are_one_line(
    arguments: tuple[str, ...], value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = run(capsys, "pretrain", *arguments, "--work", tmp_path, code=2)
    assert value in message
    assert message.count("\n") == 1


@pytest.fixture
def warm(tmp_path: Path) -> Path:
    from dsmoe_core.build import build

    path = tmp_path / "mine.safetensors"
    checkpoint.save_warm_start(path, build(ModelConfig()), size="nano", licence="mine", made={})
    return path


def test_workspace_starts_from_a_given_file(
    warm: Path, blocks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("init", tmp_path / "w", "--images", blocks / "images", "--classes", "rust")
    run(capsys, *command, "--start", warm)
    detector = yaml.safe_load((tmp_path / "w" / "dsmoe.yaml").read_text())["detector"]
    assert (detector["start"], detector["warm_start"]) == ("warm", str(warm))
    with Workspace.open(tmp_path / "w") as workspace:
        assert dsmoe_backend(workspace, Environment.read())._encoder_from == warm
    other = run(capsys, "init", tmp_path / "b", *command[2:], "--start", warm, "--size", "base", code=2)
    assert "nano" in other
    assert "base" in other
    unknown = run(capsys, "init", tmp_path / "b", *command[2:], "--start", "tepid", code=2)
    assert "tepid" in unknown
    assert not (tmp_path / "b").exists()


def ship(warm: Path, package: Path) -> None:
    """Put the warm start where the one of the package is."""
    package.mkdir(exist_ok=True)
    for file in (warm, checkpoint.card_path(warm)):
        (package / f"nano{file.suffix}").write_bytes(file.read_bytes())


def test_workspace_starts_from_the_packaged_warm_start(
    warm: Path,
    blocks: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checkpoint, "_FOLDER", tmp_path / "package")
    command = ("init", tmp_path / "w", "--images", blocks / "images", "--classes", "rust", "--start", "warm")
    refused = run(capsys, *command, code=2)
    assert "nano" in refused
    assert not (tmp_path / "w").exists()
    ship(warm, tmp_path / "package")
    run(capsys, *command)
    with Workspace.open(tmp_path / "w") as workspace:
        first = dsmoe_backend(workspace, Environment.read())._encoder_from
    assert first == checkpoint.shipped_path("nano")


@pytest.mark.parametrize(
    ("options", "ships", "imagenet", "start"),
    [
        ((), True, True, "imagenet-lite"),
        (("--ablation", "c"), True, True, "imagenet-lite"),
        ((), True, False, "warm"),
        (("--ablation", "c"), True, False, "warm"),
        (("--ablation", "b"), True, True, "scratch"),
        (("--size", "base"), True, True, "scratch"),
        (("--start", "scratch"), True, True, "scratch"),
        ((), False, False, "scratch"),
    ],
)
def test_default_start_is_the_best_of_the_installed_ones(
    options: tuple[str, ...],
    ships: bool,
    imagenet: bool,
    start: str,
    warm: Path,
    blocks: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checkpoint, "_FOLDER", tmp_path / "package")
    if ships:
        ship(warm, tmp_path / "package")
    if not imagenet:
        monkeypatch.setattr("dsmoe_core.efficientnet.weights.PACKAGE", "no-such-package")
    output = run(capsys, "init", tmp_path / "w", "--images", blocks / "images", "--classes", "rust", *options)
    detector = yaml.safe_load((tmp_path / "w" / "dsmoe.yaml").read_text())["detector"]
    assert detector.get("start", "scratch") == start
    assert ("synthetic" in output) is (start == "warm")
    assert ("ImageNet" in output) is (start == "imagenet-lite")


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ({"start": "warm", "model": {"ablation": "B"}}, "row B"),
        ({"start": "scratch", "warm_start": "/a.safetensors"}, "scratch"),
        ({"start": "warm", "warm_start": ""}, "warm_start"),
    ],
)
def test_contradicting_settings_are_refused(raw: dict[str, Any], value: str) -> None:
    with pytest.raises(SettingsError, match=value):
        validate_settings(DetectorSettings, raw, "the test")


@pytest.mark.parametrize(
    ("given", "file"),
    [
        (None, None),
        ("a.safetensors", "/boards/a.safetensors"),
        ("/weights/a.safetensors", "/weights/a.safetensors"),
        ("~/a.safetensors", "/our/a.safetensors"),
    ],
)
def test_warm_start_is_absolute_or_in_the_workspace(
    given: str | None, file: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/our")
    settings = DetectorSettings(start="warm", warm_start=given)
    assert settings.warm_start_file(Path("/boards")) == (None if file is None else Path(file))


def test_distillation_needs_a_teacher(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError):
        pretrain.train_unlabelled(
            "distill",
            [],
            model=ModelConfig(),
            training=TrainingConfig(),
            folder=tmp_path,
            cache=None,
            progress=SilentProgress(),
            teacher=None,
        )


def test_plan_has_the_model_of_its_size() -> None:
    assert WarmStartPlan(size="base", px=96).model == ModelConfig.of_size("base").model_copy(
        update={"image_px": 96}
    )
    with pytest.raises(DsmoeError, match="size"):
        validate_settings(WarmStartPlan, {"size": "huge"}, "the test")
