"""Rounds that are killed at any point and run again end as if they had not been interrupted."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.pipelines import killable_demo
from tests.pipelines.blocks import write_blocks

ROOT = Path(__file__).resolve().parents[3]
STEPS = ("choose", "push", "annotate", "harvest", "dataset", "train", "evaluate", "promote")


class Killed(BaseException):
    """Stands for a kill: nothing on the way catches it."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, data: Path) -> dict[str, Any]:
    """The outcome of a run without interruptions."""
    path = tmp_path_factory.mktemp("undisturbed") / "w"
    killable_demo.run(path, data, lambda _: None)
    return killable_demo.outcome(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_blocks(tmp_path_factory.mktemp("data") / "blocks", train=9, val=3)


@pytest.mark.slow
def test_run_killed_at_every_single_call_ends_the_same(
    tmp_path: Path, data: Path, undisturbed: dict[str, Any]
) -> None:
    """Each run is killed at the first place at which no run before was killed."""
    survived: set[str] = set()

    def run_until_killed() -> bool:
        visits: Counter[str] = Counter()
        step = "start"

        def tick(place: str) -> None:
            nonlocal step
            if place.startswith("begin "):
                step = place.removeprefix("begin ")
            visits[step + place] += 1
            here = f"{step}: {place} ({visits[step + place]})"
            if here not in survived:
                survived.add(here)
                raise Killed(here)

        try:
            killable_demo.run(tmp_path / "w", data, tick)
        except Killed:
            return True
        return False

    kills = 0
    while run_until_killed():
        kills += 1
    assert kills > 100
    journalled = [step for step in STEPS if step != "annotate"]
    assert {f"{step} of round 2: after journal.finish (1)" for step in journalled} <= survived
    assert killable_demo.outcome(tmp_path / "w") == undisturbed


@pytest.mark.parametrize("step", STEPS)
def test_run_killed_once_after_a_step_ends_the_same(
    tmp_path: Path, data: Path, undisturbed: dict[str, Any], step: str
) -> None:
    target = f"end {step} of round 1"

    def tick(place: str) -> None:
        if place == target:
            raise Killed(place)

    with pytest.raises(Killed):
        killable_demo.run(tmp_path / "w", data, tick)
    killable_demo.run(tmp_path / "w", data, lambda _: None)
    assert killable_demo.outcome(tmp_path / "w") == undisturbed


DYING_PROCESS = """
import os, sys
from pathlib import Path
from tests.pipelines import killable_demo
left = [int(sys.argv[3])]
def tick(place):
    left[0] -= 1
    if not left[0]:
        os._exit(9)  # without any clean-up, as by SIGKILL
killable_demo.run(Path(sys.argv[1]), Path(sys.argv[2]), tick)
"""


@pytest.mark.parametrize("calls", [31, pytest.param(83, marks=pytest.mark.slow)])
def test_process_that_dies_without_clean_up_can_be_run_again(
    tmp_path: Path, data: Path, undisturbed: dict[str, Any], calls: int
) -> None:
    command = [sys.executable, "-c", DYING_PROCESS, str(tmp_path / "w"), str(data), str(calls)]
    died = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert died.returncode == 9, died.stderr
    killable_demo.run(tmp_path / "w", data, lambda _: None)
    assert killable_demo.outcome(tmp_path / "w") == undisturbed
