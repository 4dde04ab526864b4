"""`dsmoe watch` and `dsmoe round approve` on the real command line, with stubs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ctrl_c import hears_ctrl_c

from pipelines import cli
from pipelines.workspace.loop_lock import LoopOwner
from pipelines.workspace.workspace import Workspace

ROOT = Path(__file__).resolve().parents[3]


def test_once_explain_says_what_would_happen(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["watch", str(workspace.path), "--once", "--explain", "--json"]) == 0
    decision = json.loads(capsys.readouterr().out)
    assert decision["action"] == "open"
    assert [check["name"] for check in decision["checks"]] == ["nothing_held"]
    assert workspace.rounds() == []
    assert cli.run(["watch", str(workspace.path), "--once", "--explain"]) == 0
    assert "nothing_held" in capsys.readouterr().out


def test_once_carries_the_decision_out(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    for expected in ("open", "wait"):
        assert cli.run(["watch", str(workspace.path), "--once", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["action"] == expected
    assert [row.state for row in workspace.rounds()] == ["open"]
    assert workspace.journal.loop_locks().owner() is None


@pytest.mark.parametrize(
    "options", [["--explain"], ["--json"], ["--once", "--rounds", "2"], ["--every", "0"], ["--every", "nan"]]
)
def test_options_that_exclude_each_other_are_refused(workspace: Workspace, options: list[str]) -> None:
    assert cli.run(["watch", str(workspace.path), *options]) == 2
    assert workspace.rounds() == []


def test_second_loop_is_refused_in_one_line(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    workspace.journal.loop_locks().acquire(LoopOwner.this_process(workspace.path, 60.0))
    assert cli.run(["watch", str(workspace.path), "--once"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert str(os.getpid()) in line


def test_approval_is_recorded(workspace: Workspace) -> None:
    assert cli.run(["round", "approve", str(workspace.path)]) == 2
    assert cli.run(["watch", str(workspace.path), "--once"]) == 0
    assert cli.run(["round", "approve", str(workspace.path), "--reason", "checked"]) == 0
    assert workspace.journal.value("approved_retraining")["round"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_loop_cleanly(workspace: Workspace, sign: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", "watch", str(workspace.path), "--every", "0.2"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=hears_ctrl_c,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while [row.state for row in workspace.rounds()] != ["open"]:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(sign)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert errors == ""
    assert out.strip().splitlines()[-1].startswith("stopped")
    assert workspace.journal.loop_locks().owner() is None
