"""dsmoe train: one training on labelled files, alone or by torchrun."""

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
Out = pytest.CaptureFixture[str]


@pytest.fixture
def network(workspace: Workspace) -> Path:
    """A workspace whose detector is a small network."""
    path = workspace.path / "dsmoe.yaml"
    settings = workspace.settings.model_dump()
    settings["detector"] |= {"kind": "ds-moe", "model": SMALL.model_dump()}
    settings["detector"]["training"] |= {"batch": 2, "precision": "32-true"}
    WorkspaceSettings.model_validate(settings).write(path)
    return workspace.path


def words(out: Path, blocks: Path, network: Path, *more: str) -> list[str]:
    given = ["--annotations", str(blocks / "train.json"), "--images", str(blocks / "images")]
    return ["train", str(out), *given, "--workspace", str(network), "--images-seen", "4", *more]


def test_it_trains_goes_on_and_says_how_it_ended(
    tmp_path: Path, blocks: Path, network: Path, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    monkeypatch.setattr(DSMoEBackend, "text_encoder", HashEncoder())
    assert cli.run(words(tmp_path / "first", blocks, network, "--seed", "7")) == 0
    assert "first: 2 steps on 12 images in" in capsys.readouterr().out
    card = json.loads((tmp_path / "first" / "model.json").read_text())
    assert (card["training"]["seed"], card["training"]["batch"], card["config"]["width"]) == (7, 2, 32)
    weights = tmp_path / "first" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    assert cli.run(words(tmp_path / "first", blocks, network, "--seed", "7")) == 0
    assert weights.stat().st_mtime_ns == before
    assert cli.run(words(tmp_path / "second", blocks, network, "--from", str(tmp_path / "first"))) == 0
    assert (tmp_path / "second" / "model.safetensors").is_file()


def test_a_model_that_is_not_there_is_one_line(
    tmp_path: Path, blocks: Path, network: Path, capsys: Out
) -> None:
    assert cli.run(words(tmp_path / "out", blocks, network, "--from", "nowhere")) == 2
    assert "model 'nowhere' is not in" in capsys.readouterr().err


@pytest.mark.slow
def test_torchrun_starts_it_in_several_processes(tmp_path: Path, blocks: Path, network: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, "-m", "pipelines.cli", *words(tmp_path / "out", blocks, network)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("2 steps on 12 images") == 1
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"model.json", "model.safetensors"}
