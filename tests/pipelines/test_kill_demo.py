"""The real `dsmoe demo`, with Label Studio and the network, killed three times and continued."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from ctrl_c import hears_ctrl_c

from annotate.studio.api import Api
from annotate.studio.server import LabelStudioServer
from pipelines.workspace.journal import Journal
from pipelines.workspace.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
BUDGET, ROUNDS, TIMEOUT_S = 6, 2, 900.0
Condition = Callable[[Journal], bool]


def started(number: int, step: str) -> Condition:
    """The step of the round is started and not finished."""
    return lambda journal: any(s[:2] == (number, step) and not s[3] for s in journal.steps())


def annotating(number: int) -> Condition:
    """The round is open."""
    return lambda journal: any(r.round == number and r.state == "open" for r in journal.rounds())


class Demo:
    """Starts the demo command, any number of times, with the same arguments."""

    def __init__(self, folder: Path, data: Path, environments: Path) -> None:
        self._folder, self._data, self._environments = folder, data, environments
        self.workspace = folder / "w"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = str(probe.getsockname()[1])

    def start(self) -> subprocess.Popen[str]:
        arguments = [
            "demo",
            "--data",
            self._data,
            "--workspace",
            self.workspace,
            "--port",
            self._port,
            "--headless",
        ]
        arguments += ["--budget", BUDGET, "--rounds", ROUNDS, "--px", 96, "--images-seen", "48,48,480"]
        return subprocess.Popen(
            [sys.executable, "-m", "pipelines.cli", *map(str, arguments)],
            cwd=self._folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "DSMOE_ENVIRONMENTS": str(self._environments)},
            preexec_fn=hears_ctrl_c,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def killed(self, reached: Condition, how: signal.Signals, delay: float = 0.0) -> tuple[int, str]:
        """Start the demo and send it a signal when the condition holds; returns the exit code and stderr."""
        process = self.start()
        deadline = time.monotonic() + TIMEOUT_S
        path = self.workspace / "journal.sqlite"
        while not (path.exists() and (self.workspace / "dsmoe.yaml").exists()):
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        journal = Journal.at(path)
        while not reached(journal):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "the condition did not become true"
            time.sleep(0.02)
        journal.close()
        time.sleep(delay)
        process.send_signal(how)
        errors = process.communicate(timeout=120)[1]
        return process.returncode, errors


@pytest.mark.slow
@pytest.mark.labelstudio
@pytest.mark.timeout(1800)
def test_demo_continues_after_kills_during_push_annotation_and_training(
    tmp_path: Path, environments: Path
) -> None:
    from dsmoe_core.data.synthetic import write_synthetic_set

    write_synthetic_set(tmp_path / "boards", "pcb", train=24, val=6, seed=5, px=96)
    demo = Demo(tmp_path, tmp_path / "boards", environments)
    assert demo.killed(started(1, "push"), signal.SIGKILL)[0] == -signal.SIGKILL
    assert demo.killed(annotating(1), signal.SIGKILL, delay=0.3)[0] == -signal.SIGKILL
    code, errors = demo.killed(started(2, "train"), signal.SIGINT, delay=1.0)
    assert code == 130
    assert len(errors.strip().splitlines()) == 1
    last = demo.start()
    out, errors = last.communicate(timeout=TIMEOUT_S)
    assert last.returncode == 0, errors
    assert "mAP @.5" in out

    server = LabelStudioServer(demo.workspace / "studio", demo.workspace, environments, int(demo._port))
    assert not server.status().running  # --headless
    api = Api(server.start())
    try:
        with Workspace.open(demo.workspace) as workspace:
            tasks = workspace.journal.tasks()
            harvests = workspace.journal.harvests()
            rows = workspace.rounds()
            attempts = {(number, step): count for number, step, count, _ in workspace.journal.steps()}
        with api.client("show what it has") as sdk:
            (project,) = sdk.projects.list()
            on_server = list(sdk.tasks.list(project=project.id, page_size=1000))
    finally:
        server.stop()
    expected = BUDGET * (ROUNDS + 1)
    assert attempts[1, "push"] == attempts[2, "train"] == 2  # it was killed during these steps
    assert Counter(task.data["key"] for task in on_server) == Counter(task.key for task in tasks)
    assert len(tasks) == len({task.key for task in tasks}) == expected + BUDGET  # one more round is left open
    assert len(harvests) == expected
    assert {task.data["key"]: task.total_annotations for task in on_server} == {
        task.key: int(task.key in harvests) for task in tasks
    }
    assert [row.state for row in rows] == ["closed"] * (ROUNDS + 1) + ["open"]
    assert [row.images for row in rows[:-1]] == [BUDGET * (n + 1) for n in range(ROUNDS + 1)]
