"""dsmoe benchmark demos: demos of two kinds and seeds in one result file, with the stubs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines import cli
from pipelines.benchmarks.demos_table import demos_table


def test_each_kind_and_seed_is_run_once(
    blocks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, work = tmp_path / "results" / "demos.json", tmp_path / "work"
    words = ["benchmark", "demos", "--data", str(blocks), "--rounds", "1", "--budget", "3", "--dry-run"]
    words += ["--work", str(work), "--json", str(file)]
    assert cli.run([*words, "--seeds", "1", "--variant", "default"]) == 0
    first = json.loads(file.read_text())["data"]["runs"]
    assert [(run["variant"], run["seed"], len(run["rounds"])) for run in first] == [("default", 1, 2)]
    assert not (work / "data-default-1" / "workspace").exists()
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
