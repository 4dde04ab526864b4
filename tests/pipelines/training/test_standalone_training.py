"""``dsmoe train``: training on labelled files, in one process and under torchrun."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import SMALL, HashEncoder

from pipelines import cli
from pipelines.detectors.ds_moe import DSMoEBackend
from pipelines.settings import WorkspaceSettings
from pipelines.workspace.workspace import Workspace

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
    assert "2 steps on 12 images" in capsys.readouterr().out
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


def test_unknown_start_model_is_refused(
    tmp_path: Path, blocks: Path, small_workspace: Path, capsys: Captured
) -> None:
    assert cli.run(arguments(tmp_path / "out", blocks, small_workspace, "--from", "nowhere")) == 2
    message = capsys.readouterr().err
    assert "nowhere" in message
    assert message.count("\n") == 1


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
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"model.json", "model.safetensors"}
