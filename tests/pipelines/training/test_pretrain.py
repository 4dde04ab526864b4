"""``dsmoe pretrain``: one file and its card, resumable, made once, and a workspace that starts from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import HashEncoder

from dsmoe_core.config import ModelConfig
from dsmoe_core.data.synthetic import generator_version
from dsmoe_core.errors import DsmoeError, SettingsError
from dsmoe_core.warm_start import checkpoint
from pipelines import cli
from pipelines.detectors.ds_moe import dsmoe_backend
from pipelines.settings import DetectorSettings, Environment, validate_settings
from pipelines.training import pretrain
from pipelines.training.pretrain import WarmStartPlan, synthetic_vocabulary
from pipelines.workspace.workspace import Workspace

WORDS = ("--px", "64", "--images", "8")


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few images, and words read by a text encoder that needs no time."""
    monkeypatch.setattr("pipelines.detectors.backend.text_encoder", lambda text, key: HashEncoder())
    monkeypatch.setattr(pretrain, "HELD_OUT", 2)
    monkeypatch.setattr(pretrain, "SHARD", 2)


def run(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> str:
    assert cli.run([*map(str, words)]) == code
    shown = capsys.readouterr()
    return shown.out if code == 0 else shown.err


def test_the_union_of_all_kinds_is_described() -> None:
    vocabulary = synthetic_vocabulary()
    assert len(vocabulary) == 28
    assert all(len(text.description.split()) > 8 and len(text.paraphrases) >= 4 for text in vocabulary)


def test_a_warm_start_is_made_from_drawn_images_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, work = tmp_path / "warm.safetensors", tmp_path / "work"
    command = ("pretrain", out, *WORDS, "--drawn", "9", "--work", work)
    shown = run(capsys, *command)
    assert "glass: mAP@.5 0." in shown
    assert f"{out} and its card are written" in shown
    card = checkpoint.read_card(out)
    assert (card.size, card.licence) == ("nano", "Apache-2.0")
    assert card.made["generator"] == generator_version()
    assert (card.made["seed"], card.made["drawn"], card.made["images"]) == (42, 9, 8)
    assert set(card.made["held_out"]) == {"pcb", "aluminium", "glass"}
    assert str(tmp_path) not in json.dumps(card.model_dump())
    written = out.stat().st_mtime_ns
    assert "there already" in run(capsys, *command)
    assert out.stat().st_mtime_ns == written
    out.write_bytes(out.read_bytes()[:-1])
    assert "are written" in run(capsys, *command)  # from the finished training, which is still there
    assert checkpoint.read_card(out).sha256 == card.sha256


def test_images_without_labels_come_first(
    blocks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    real = checkpoint.load_initial_encoder
    monkeypatch.setattr(
        "dsmoe_core.train.load_initial_encoder", lambda n, path: (begun.append(path.name), real(n, path))
    )
    out = tmp_path / "warm.safetensors"
    run(
        capsys,
        "pretrain",
        out,
        *WORDS,
        "--drawn",
        "3",
        "--images",
        blocks / "images",
        "--work",
        tmp_path / "w",
    )
    assert begun == ["masked.safetensors"]
    card = checkpoint.read_card(out)
    assert card.made["unlabelled"]["recipe"] == "SimMIM"
    assert card.made["unlabelled"]["images"] == len(list((blocks / "images").iterdir()))
    assert card.licence.startswith("that of the images")
    alone = tmp_path / "alone.safetensors"
    run(
        capsys,
        "pretrain",
        alone,
        *WORDS,
        "--drawn",
        "0",
        "--images",
        blocks / "images",
        "--work",
        tmp_path / "w",
    )
    assert "held_out" not in checkpoint.read_card(alone).made


def test_killed_while_drawing_it_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, work = tmp_path / "warm.safetensors", tmp_path / "work"
    real, drawn = pretrain.write_synthetic_set, []

    def killed(folder: Path, *rest: Any, **more: Any) -> None:
        if len(drawn) == 3:
            raise KeyboardInterrupt
        drawn.append(folder.name)
        real(folder, *rest, **more)

    def killed_again() -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(pretrain, "write_synthetic_set", killed)
    assert "run the same command to go on" in run(
        capsys, "pretrain", out, *WORDS, "--drawn", "9", "--work", work, code=130
    )
    before = {p: p.stat().st_mtime_ns for p in work.rglob("train.json")}
    assert len(before) == 3
    monkeypatch.setattr(pretrain, "write_synthetic_set", real)
    monkeypatch.setattr(pretrain, "synthetic_vocabulary", killed_again)
    run(capsys, "pretrain", out, *WORDS, "--drawn", "9", "--work", work, code=130)
    assert len(list(work.rglob("train.json"))) == 9
    assert {p: p.stat().st_mtime_ns for p in before} == before


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("warm.pt",), "expected a name that ends in .safetensors"),
        (("w.safetensors", "--px", "100"), "px: input should be a multiple of 32"),
        (("w.safetensors", "--drawn", "0"), "there is no image to learn from"),
        (("w.safetensors", "--images", "nowhere"), "nowhere is not a folder"),
    ],
)
def test_a_mistake_is_one_line(
    words: tuple[str, ...], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = run(capsys, "pretrain", *words, "--work", tmp_path, code=2)
    assert problem in shown
    assert shown.count("\n") == 1


@pytest.fixture
def warm(tmp_path: Path) -> Path:
    from dsmoe_core.build import build

    path = tmp_path / "mine.safetensors"
    checkpoint.save_warm_start(path, build(ModelConfig()), size="nano", licence="mine", made={})
    return path


def test_a_workspace_starts_from_a_file_of_one_s_own(
    warm: Path, blocks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = ("init", tmp_path / "w", "--images", blocks / "images", "--classes", "rust")
    run(capsys, *made, "--start", warm)
    detector = yaml.safe_load((tmp_path / "w" / "dsmoe.yaml").read_text())["detector"]
    assert (detector["start"], detector["warm_start"]) == ("warm", str(warm))
    with Workspace.open(tmp_path / "w") as workspace:
        assert dsmoe_backend(workspace, Environment.read())._encoder_from == warm
    other = run(capsys, "init", tmp_path / "b", *made[2:], "--start", warm, "--size", "base", code=2)
    assert "is for size nano; expected base. Give --size nano too" in other
    unknown = run(capsys, "init", tmp_path / "b", *made[2:], "--start", "tepid", code=2)
    assert "--start is tepid; expected scratch, mobile-sam, warm or a file" in unknown
    assert not (tmp_path / "b").exists()


def ship(warm: Path, package: Path) -> None:
    """As if it came with dsmoe."""
    package.mkdir(exist_ok=True)
    for file in (warm, checkpoint.card_path(warm)):
        (package / f"nano{file.suffix}").write_bytes(file.read_bytes())


def test_a_workspace_starts_from_what_ships_or_says_what_to_do(
    warm: Path,
    blocks: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checkpoint, "_HERE", tmp_path / "package")
    made = ("init", tmp_path / "w", "--images", blocks / "images", "--classes", "rust", "--start", "warm")
    refused = run(capsys, *made, code=2)
    assert "no warm start for size nano comes with dsmoe. Make one with `dsmoe pretrain`" in refused
    assert not (tmp_path / "w").exists()
    ship(warm, tmp_path / "package")
    run(capsys, *made)
    with Workspace.open(tmp_path / "w") as workspace:
        first = dsmoe_backend(workspace, Environment.read())._encoder_from
    assert first == checkpoint.shipped_path("nano")


@pytest.mark.parametrize(
    ("words", "ships", "start"),
    [
        ((), True, "warm"),
        (("--ablation", "c"), True, "warm"),
        (("--ablation", "b"), True, "scratch"),
        (("--size", "base"), True, "scratch"),
        (("--start", "scratch"), True, "scratch"),
        ((), False, "scratch"),
    ],
)
def test_a_workspace_starts_warm_where_that_is_possible_unless_told_otherwise(
    words: tuple[str, ...],
    ships: bool,
    start: str,
    warm: Path,
    blocks: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checkpoint, "_HERE", tmp_path / "package")
    if ships:
        ship(warm, tmp_path / "package")
    said = run(capsys, "init", tmp_path / "w", "--images", blocks / "images", "--classes", "rust", *words)
    detector = yaml.safe_load((tmp_path / "w" / "dsmoe.yaml").read_text())["detector"]
    assert detector.get("start", "scratch") == start
    assert ("come with dsmoe" in " ".join(said.split())) is (start == "warm")


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ({"start": "warm", "model": {"ablation": "B"}}, "start is warm, model is row B"),
        ({"start": "scratch", "warm_start": "/a.safetensors"}, "start is scratch; expected warm"),
        ({"start": "warm", "warm_start": "a.safetensors"}, "warm_start"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(raw: dict[str, Any], problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        validate_settings(DetectorSettings, raw, "the test")


def test_a_plan_is_of_a_preset() -> None:
    assert WarmStartPlan(size="base", px=96).model == ModelConfig.of_size("base").model_copy(
        update={"image_px": 96}
    )
    with pytest.raises(DsmoeError, match="size"):
        validate_settings(WarmStartPlan, {"size": "huge"}, "the test")
