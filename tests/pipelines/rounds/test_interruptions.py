"""Killed anywhere and run again: nothing is lost, nothing is doubled, no image is sent twice."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.pipelines import journey

ROOT = Path(__file__).resolve().parents[3]
STEPS = ("choose", "push", "annotate", "harvest", "dataset", "train", "evaluate", "promote")


class Killed(BaseException):
    """Comes at any place and is caught by nothing on the way."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, data: Path) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("undisturbed") / "w"
    journey.run(path, data, lambda _: None)
    return journey.outcome(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.pipelines.blocks import write_blocks

    return write_blocks(tmp_path_factory.mktemp("data") / "blocks", train=9, val=3)


def test_killed_at_every_single_call_in_turn_it_ends_as_if_nothing_had_happened(
    tmp_path: Path, data: Path, undisturbed: dict[str, Any]
) -> None:
    """Each run lives until the first place where no run before it was killed."""
    survived: set[str] = set()

    def run_until_killed() -> bool:
        seen: Counter[str] = Counter()
        step = ["start"]

        def tick(place: str) -> None:
            if place.startswith("begin "):
                step[0] = place.removeprefix("begin ")
            seen[step[0] + place] += 1
            here = f"{step[0]}: {place} ({seen[step[0] + place]})"
            if here not in survived:
                survived.add(here)
                raise Killed(here)

        try:
            journey.run(tmp_path / "w", data, tick)
        except Killed:
            return True
        return False

    kills = 0
    while run_until_killed():
        kills += 1
    assert kills > 100
    journalled = [step for step in STEPS if step != "annotate"]
    assert {f"{step} of round 2: after journal.finish (1)" for step in journalled} <= survived
    assert journey.outcome(tmp_path / "w") == undisturbed


@pytest.mark.parametrize("step", STEPS)
def test_killed_once_after_a_step_it_ends_as_if_nothing_had_happened(
    tmp_path: Path, data: Path, undisturbed: dict[str, Any], step: str
) -> None:
    target = f"end {step} of round 1"

    def tick(place: str) -> None:
        if place == target:
            raise Killed(place)

    with pytest.raises(Killed):
        journey.run(tmp_path / "w", data, tick)
    journey.run(tmp_path / "w", data, lambda _: None)
    assert journey.outcome(tmp_path / "w") == undisturbed


DIES = """
import os, sys
from pathlib import Path
from tests.pipelines import journey
left = [int(sys.argv[3])]
def tick(place):
    left[0] -= 1
    if not left[0]:
        os._exit(9)  # no clean-up of any kind, as by SIGKILL
journey.run(Path(sys.argv[1]), Path(sys.argv[2]), tick)
"""


@pytest.mark.parametrize("calls", [31, 83])
def test_a_process_that_dies_without_cleaning_up_leaves_nothing_broken(
    tmp_path: Path, data: Path, undisturbed: dict[str, Any], calls: int
) -> None:
    command = [sys.executable, "-c", DIES, str(tmp_path / "w"), str(data), str(calls)]
    died = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert died.returncode == 9, died.stderr
    journey.run(tmp_path / "w", data, lambda _: None)
    assert journey.outcome(tmp_path / "w") == undisturbed
