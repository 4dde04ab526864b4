"""dsmoe benchmark demos: demos of two kinds and seeds in one result file, with the stubs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dsmoe_core.config import ModelConfig
from pipelines import cli
from pipelines.benchmarks.demos_table import demos_table
from pipelines.settings.demo import DemoPlan


@pytest.mark.slow
def test_each_kind_and_seed_is_run_once(blocks: Path, tmp_path: Path) -> None:
    file, work = tmp_path / "results" / "demos.json", tmp_path / "work"
    words = ["benchmark", "demos", "--data", str(blocks), "--rounds", "1", "--budget", "3", "--dry-run"]
    words += ["--work", str(work), "--json", str(file)]
    assert cli.run([*words, "--seeds", "1", "--variant", "default"]) == 0
    first = json.loads(file.read_text())["data"]["runs"]
    assert [(run["variant"], run["seed"], len(run["rounds"])) for run in first] == [("default", 1, 2)]
    assert [path.name for path in work.glob("data-default-1-*/*")] == ["result.json"]
    assert cli.run([*words, "--seeds", "2"]) == 0
    result = json.loads(file.read_text())
    runs = result["data"]["runs"]
    assert {(run["variant"], run["seed"]) for run in runs} == {
        (variant, seed) for variant in ("default", "scratch") for seed in (1, 2)
    }
    assert runs[0] == first[0]
    table = demos_table(result)
    assert "| data | default, 2 seeds |" in table
    assert "| data | scratch, 2 seeds |" in table


@pytest.mark.slow
def test_other_settings_or_labels_are_run_again(blocks: Path, tmp_path: Path) -> None:
    data, work = Path(shutil.copytree(blocks, tmp_path / "data")), tmp_path / "work"
    words = ["benchmark", "demos", "--data", str(data), "--rounds", "1", "--budget", "3", "--dry-run"]
    words += ["--seeds", "1", "--variant", "default", "--work", str(work), "--json", str(tmp_path / "a.json")]

    def results(*options: str) -> dict[Path, int]:
        assert cli.run([*words, *options]) == 0
        return {path: path.stat().st_mtime_ns for path in work.glob("*/result.json")}

    first = results()
    assert len(first) == 1
    assert results() == first
    both = results("--minutes", "6")
    assert both.items() > first.items()
    assert len(both) == 2
    assert results("--port", "9321") == both
    labels = json.loads((data / "train.json").read_text())
    (data / "train.json").write_text(json.dumps(labels | {"annotations": labels["annotations"][1:]}))
    assert len(results()) == 3


def test_dry_run_is_not_a_result_of_a_real_run(
    blocks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[DemoPlan] = []

    def run(plan: DemoPlan, *_: Any, as_json: Path, **__: Any) -> None:
        plans.append(plan)
        as_json.write_text(json.dumps({"minutes": 1.0, "rounds": [{"map50": 0.5}]}))

    monkeypatch.setattr("pipelines.cli.demo.run", run)
    words = ["benchmark", "demos", "--data", str(blocks), "--seeds", "1", "--variant", "scratch"]
    words += ["--work", str(tmp_path / "work"), "--json", str(tmp_path / "a.json")]
    for options in (["--dry-run"], [], ["--dry-run"], []):
        assert cli.run([*words, *options]) == 0
    assert [plan.dry_run for plan in plans] == [True, False]
    assert (plans[1].model.image_px, plans[1].model.head_strides) == (320, ModelConfig().head_strides)


def test_data_folders_with_one_name_are_refused(
    blocks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / blocks.name
    words = ["benchmark", "demos", "--data", str(blocks), "--data", str(other), "--dry-run"]
    assert cli.run([*words, "--work", str(tmp_path / "work"), "--json", str(tmp_path / "a.json")]) == 2
    assert blocks.name in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


def test_round_that_a_data_set_does_not_have_is_a_dash() -> None:
    def runs(*scores: float) -> dict[str, Any]:
        rounds = [{"map50": score, "accepted": 0.5} for score in scores]
        return {"runs": [{"variant": "default", "seed": 1, "minutes": 2.0, "rounds": rounds}]}

    table = demos_table({"a": runs(0.1), "b": runs(0.2, 0.3)}).splitlines()
    cells = [[cell.strip() for cell in row.split("|")] for row in table[2:]]
    assert [row[3:5] for row in cells] == [["0.100", "-"], ["0.200", "0.300"]]
