"""``dsmoe watch`` that is killed at random moments ends in the same state as the uninterrupted run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipelines.workspace.workspace import Workspace
from tests.pipelines import killable_demo
from tests.pipelines.blocks import write_blocks

ROOT = Path(__file__).resolve().parents[3]
ROUNDS = 3
# The processes that are killed are forked from one that has imported everything and has no threads.
UNINTERRUPTED = """
import json, sys, time
from pathlib import Path
from tests.pipelines import killable_demo
path, data, rounds = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
killable_demo.make_workspace(path, data)
started = time.monotonic()
code = killable_demo.watch(path, data, rounds, None)
print(json.dumps([code, time.monotonic() - started]))
"""
KILLED = """
import sys
from pathlib import Path
import pipelines.rounds.watch, pipelines.services.factory, dsmoe_core.evaluation.coco_metrics
from tests.pipelines import killable_demo
path, data, rounds = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
killable_demo.make_workspace(path, data)
print(killable_demo.watch_killed_at_random(path, data, rounds, int(sys.argv[4]), float(sys.argv[5])))
"""


def python(program: str, *arguments: object) -> str:
    """Run a program and return the last line of its output."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_blocks(tmp_path_factory.mktemp("data") / "blocks", train=9, val=3)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, data: Path) -> tuple[dict[str, Any], float]:
    """The outcome of a run without interruptions, and how long it took in seconds."""
    path = tmp_path_factory.mktemp("undisturbed") / "w"
    code, seconds = json.loads(python(UNINTERRUPTED, path, data, ROUNDS))
    assert code == 0
    with Workspace.open(path) as workspace:
        assert workspace.journal.loop_locks().owner() is None
    killable_demo.check_journal(path)
    return killable_demo.outcome(path), seconds


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [1, 2])
def test_watch_killed_at_random_moments_ends_the_same(
    tmp_path: Path, data: Path, undisturbed: tuple[dict[str, Any], float], seed: int
) -> None:
    expected, seconds = undisturbed
    started = time.monotonic()
    kills = int(python(KILLED, tmp_path / "w", data, ROUNDS, seed, seconds / 15))
    assert kills >= 10, f"{kills} kills in {time.monotonic() - started:.0f} s"
    killable_demo.check_journal(tmp_path / "w")
    assert killable_demo.outcome(tmp_path / "w") == expected
    assert [row["images"] for row in expected["rounds"]] == [2, 4, 6]
