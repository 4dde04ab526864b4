"""dsmoe benchmark knockout: the result files, the groups, and models that have no stages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from exports import VOCABULARY, diverse_network
from tiny import SMALL, HashEncoder

from dsmoe_core.build import build
from dsmoe_core.checkpoint import save_model
from pipelines import cli
from pipelines.detectors.ds_moe import DSMoEBackend
from tests.pipelines.blocks import COLOURS

Out = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _hash_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DSMoEBackend, "text_encoder", HashEncoder())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_model(tmp_path / "model", diverse_network(), SMALL, VOCABULARY, {"text_encoder": HashEncoder.name})
    return tmp_path / "model"


@pytest.fixture
def class_book(tmp_path: Path) -> Path:
    book = tmp_path / "classes.yaml"
    entries = [f"- {{name: {name}, description: a {name}}}\n" for name in COLOURS]
    book.write_text("classes:\n" + "".join(entries))
    return book


def run(model: Path, blocks: Path, class_book: Path, out: Path, *options: str) -> int:
    words = ["benchmark", "knockout", model, "--annotations", blocks / "train.json"]
    words += ["--images", blocks / "images", "--class-book", class_book, "--out", out]
    words += ["--resamples", "100", "--permutations", "20", *options]
    return cli.run([str(word) for word in words])


def test_result_files_have_every_part_and_the_routing(
    model: Path, blocks: Path, class_book: Path, tmp_path: Path, capsys: Out
) -> None:
    out = tmp_path / "results"
    assert run(model, blocks, class_book, out, "--by", r"-00[0-5]", "--max-images", "8") == 0
    knockout: dict[str, Any] = json.loads((out / "knockout.json").read_text())
    routing: dict[str, Any] = json.loads((out / "routing.json").read_text())
    names = [row["name"] for row in knockout["rows"]]
    assert names[:4] == ["f_out", "f_moe", "f_moe_mean", "random_experts"]
    assert [f"expert_{i}" for i in range(SMALL.experts)] == [n for n in names if n.startswith("expert_")]
    assert (knockout["images"], knockout["groups"]) == (8, 5)  # 000, 001, 003, 004 and the others
    assert sum(knockout["boxes_by_class"].values()) == knockout["boxes"]
    for row in knockout["rows"]:
        assert 0 <= row["map"] <= row["map50"] <= 1
        if row["lost50"] is not None:
            assert row["lost50"]["delta"] == pytest.approx(knockout["map50"] - row["map50"])
    assert len(routing["weights"]) == len(COLOURS)
    assert all(len(row) == SMALL.experts for row in routing["weights"])
    assert sum(routing["leading"]) == pytest.approx(1, abs=1e-3)
    assert 0 <= routing["by_class"]["share"] <= 1
    assert 0 <= routing["by_group"]["share"] <= 1
    assert "knockout.json" in capsys.readouterr().out


def test_model_without_stages_is_refused_in_one_line(
    blocks: Path, class_book: Path, tmp_path: Path, capsys: Out
) -> None:
    config = SMALL.model_copy(update={"ablation": "C"})
    save_model(tmp_path / "row", build(config), config, VOCABULARY, {"text_encoder": HashEncoder.name})
    assert run(tmp_path / "row", blocks, class_book, tmp_path / "results") == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "results").exists()


def test_model_that_finds_nothing_loses_nothing(
    blocks: Path, class_book: Path, tmp_path: Path, capsys: Out
) -> None:
    network = diverse_network()
    with torch.no_grad():
        for level in network.head.levels:
            level.bias.fill_(-50.0)
    save_model(tmp_path / "model", network, SMALL, VOCABULARY, {"text_encoder": HashEncoder.name})
    assert run(tmp_path / "model", blocks, class_book, tmp_path / "results", "--max-images", "4") == 0
    knockout: dict[str, Any] = json.loads((tmp_path / "results" / "knockout.json").read_text())
    assert knockout["map50"] == 0
    assert not any(row["carries"] for row in knockout["rows"])
    assert "mAP@.5 is 0" in capsys.readouterr().out
