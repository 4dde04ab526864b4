"""Annotation effort with chosen thresholds against one fixed score, on made-up detections."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from exports import diverse_network
from scenes import labelled, prediction
from tiny import SMALL, HashEncoder

from dsmoe_core.checkpoint import save_model
from dsmoe_core.schema import Box, ClassText, Vocabulary
from pipelines import cli
from pipelines.benchmarks.effort import ASSUMPTIONS, measure_effort
from pipelines.benchmarks.effort_table import effort_table
from pipelines.detectors.ds_moe import DSMoEBackend
from pipelines.workspace.annotation_time import CorrectionSeconds
from tests.pipelines.blocks import COLOURS

BOX = Box(20, 20, 60, 60)


def test_chosen_thresholds_hide_what_is_wrong_and_show_what_is_right() -> None:
    """Class a is right at every score, class b at none, whatever the score says."""
    rng = np.random.default_rng(0)
    truth, predictions = [], {}
    for i in range(80):
        key, label = f"i{i}", "ab"[i % 2]
        truth.append(labelled(key, *([(BOX, "a")] if label == "a" else [])))
        predictions[key] = prediction(key, (BOX, label, float(rng.uniform(0.1, 0.6))))
    measured = measure_effort(predictions, truth, CorrectionSeconds(), seed=0, resamples=200)
    rows = measured["rows"]
    assert rows["chosen"]["deleted"] == pytest.approx(0.0, abs=0.05)
    assert rows["chosen"]["added"] == pytest.approx(0.0, abs=0.1)
    assert rows["fixed"]["score"] == 0.3
    assert rows["fixed"]["deleted"] == pytest.approx(0.5, abs=0.15)
    assert rows["no pre-annotations"] == {
        **dict.fromkeys(("accepted", "moved", "relabelled", "deleted")),
        "shown": 0,
        "added": 1.0,
        "seconds_per_image": CorrectionSeconds().added / 2,
    }
    assert measured["chosen_minus_fixed"]["ci95"][1] < 0
    for points in measured["thresholds"]:
        assert points["a"] < 0.2
        assert points["b"] > 0.5
    assert json.loads(json.dumps(measured)) == measured


def test_shares_add_up() -> None:
    truth = [labelled(f"i{i}", (BOX, "a"), (Box(100, 100, 140, 140), "a")) for i in range(6)]
    predictions = {
        p.image.key: prediction(p.image.key, (BOX, "a", 0.9), (Box(150, 0, 190, 40), "a", 0.8)) for p in truth
    }
    row = measure_effort(predictions, truth, CorrectionSeconds(), seed=0, resamples=50)["rows"]["fixed"]
    assert row["shown"] == 12
    assert row["accepted"] + row["moved"] + row["relabelled"] + row["deleted"] == pytest.approx(1)
    assert (row["accepted"], row["deleted"], row["added"]) == (0.5, 0.5, 0.5)


@pytest.mark.slow
def test_models_of_several_rounds_are_measured_on_the_same_images(
    blocks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DSMoEBackend, "text_encoder", HashEncoder())
    shutil.copytree(blocks / "images", tmp_path / "data" / "images")
    shutil.copy(blocks / "train.json", tmp_path / "data" / "val.json")
    vocabulary = Vocabulary(tuple(ClassText(name, f"a {name}") for name in COLOURS))
    words: list[str] = []
    for name in ("r0", "r1"):
        save_model(tmp_path / name, diverse_network(), SMALL, vocabulary, {"text_encoder": HashEncoder.name})
        words += ["--model", str(tmp_path / name)]
    out = ["--out", str(tmp_path), "--max-images", "6"]
    assert cli.run(["benchmark", "effort", "--data", str(tmp_path / "data"), *words, *out]) == 0
    measured = json.loads((tmp_path / "effort.json").read_text())["models"]
    assert [Path(m["model"]).name.split("+")[0] for m in measured] == ["r0", "r1"]
    assert [(m["images"], m["boxes"]) for m in measured] == [(6, measured[0]["boxes"])] * 2
    table = effort_table({"models": measured})
    rows = [line for line in table.splitlines() if line.startswith("| r")]
    assert len(rows) == 2 * len(ASSUMPTIONS) * 4  # chosen, fixed, best fixed, none
