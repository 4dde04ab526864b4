"""Dagster's web server and daemon as processes of one workspace: start, stop, status.

All of Dagster's files are in the workspace's folder ``orchestration``, its DAGSTER_HOME.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import httpx
import yaml

from annotate.logs import log_tail
from dsmoe_core.atomic import atomic_write
from dsmoe_core.errors import PrerequisiteError, ServiceError
from dsmoe_core.loopback import LOOPBACK, free_port
from dsmoe_core.progress import StatusCallback
from pipelines.settings.environment import own_process_environment
from pipelines.workspace.loop_lock import process_start

PORT = 3070
_START_TIMEOUT_S = 600.0  # Dagster starts five processes; on a busy machine that takes minutes
_STOP_TIMEOUT_S = 150.0  # Dagster waits 60 s for each of its two services
_INSTANCE = {
    "telemetry": {"enabled": False},
    "nux": {"enabled": False},  # a form on the first page that sends an e-mail address to Dagster's makers
    "run_coordinator": {
        "module": "dagster.core.run_coordinator",
        "class": "QueuedRunCoordinator",
        "config": {"max_concurrent_runs": 1},
    },
}
# Starts a program in a session of its own, which Ctrl-C in the terminal does not reach, and ends, so that the
# program leaves no zombie. A shell would start it with SIGINT ignored, and Dagster takes SIGTERM like SIGINT.
_LAUNCH = """
import os, subprocess, sys
log = open(sys.argv[1], "wb")
options = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "start_new_session": True}
print(subprocess.Popen(sys.argv[2:], **options).pid, flush=True)
os._exit(0)
"""


@dataclass(frozen=True, slots=True)
class ScheduleStatus:
    """Status of a workspace's Dagster.

    Attributes:
        pid: of its main process; None where it does not run.
        url: of its page.
        healthy: the page answers.
    """

    pid: int | None
    url: str
    healthy: bool
    log: Path


class ScheduleService:
    """Starts, finds and stops Dagster for one workspace, on loopback.

    Args:
        workspace: its folder.
        port: of the page; None: ``PORT`` or the next free one.
    """

    def __init__(self, workspace: Path, port: int | None = None) -> None:
        self._workspace, self._port = workspace.resolve(), port
        self.home = self._workspace / "orchestration"
        self.log = self.home / "dagster.log"
        self._pid_file = self.home / "process.json"

    def up(self, on_status: StatusCallback) -> str:
        """Start Dagster unless it runs, and wait until its page answers.

        Returns:
            The address of the page.

        Raises:
            PrerequisiteError: Dagster is not installed.
            ServiceError: no port is free, or Dagster ended or hung while starting.
        """
        for package in ("dagster", "dagster_webserver"):
            if find_spec(package) is None:
                raise PrerequisiteError(
                    f"the package {package} is not installed",
                    "Install the extra: `pip install 'dsmoe[schedule]'`.",
                )
        if self.status().pid is None:
            self._start(free_port(self._port or PORT, "Dagster", ServiceError, fixed=self._port is not None))
        started = time.monotonic()
        while not (status := self.status()).healthy:
            seconds = time.monotonic() - started
            if status.pid is None or seconds > _START_TIMEOUT_S:
                self.down()
                what = (
                    "ended while starting" if status.pid is None else f"did not answer within {seconds:.0f} s"
                )
                raise ServiceError(
                    f"Dagster {what}. The end of its log:\n{log_tail(self.log)}\n",
                    f"Read the full log in {self.log}, then run `dsmoe schedule up` again.",
                )
            on_status(f"starting Dagster ({seconds:.0f} s)")
            time.sleep(0.5)
        return status.url

    def down(self) -> bool:
        """Stop Dagster with all its processes; a run that is active is interrupted.

        Returns:
            Whether it ran.
        """
        pid = self.status().pid
        if pid is None:
            return False
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        while self._running() is not None and time.monotonic() < deadline:
            time.sleep(0.1)
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # it leads its session, so this is what is left of it
        self._pid_file.unlink(missing_ok=True)
        return True

    def status(self) -> ScheduleStatus:
        """Whether Dagster runs and its page answers; starts nothing."""
        running = self._running()
        pid, port = running or (None, self._port or PORT)
        url = f"http://{LOOPBACK}:{port}"
        return ScheduleStatus(pid, url, pid is not None and _answers(url), self.log)

    def _running(self) -> tuple[int, int] | None:
        """Process id and port of the running Dagster; None where none runs."""
        try:
            stored = json.loads(self._pid_file.read_text(encoding="utf-8"))
            pid, start, port = int(stored["pid"]), str(stored["start"]), int(stored["port"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return (pid, port) if process_start(pid) == start else None

    def _start(self, port: int) -> None:
        self.home.mkdir(mode=0o700, exist_ok=True)
        atomic_write(self.home / "dagster.yaml", yaml.safe_dump(_INSTANCE))
        command = [sys.executable, "-m", "dagster", "dev", "--host", LOOPBACK, "--port", str(port)]
        command += ["--module-name", "pipelines.orchestration.code_location"]
        variables = {
            "DAGSTER_HOME": str(self.home),
            "DAGSTER_DISABLE_TELEMETRY": "1",
            "DSMOE_SCHEDULED_WORKSPACE": str(self._workspace),
        }
        self.log.touch(0o600)
        launched = subprocess.run(
            [sys.executable, "-c", _LAUNCH, str(self.log), *command],
            cwd=self.home,
            env=own_process_environment(variables),
            stdout=subprocess.PIPE,
            check=True,
        )
        pid = int(launched.stdout)
        identity = {"pid": pid, "start": process_start(pid), "port": port}
        atomic_write(self._pid_file, json.dumps(identity))


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/server_info", timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False
