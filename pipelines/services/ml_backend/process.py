"""The ML backend as a process of its own: credentials, start, stop and status.

The process holds a file lock while it runs. The operating system releases the lock when the process ends, so
a held lock proves that it runs.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import httpx

from annotate.logs import log_tail
from dsmoe_core.errors import StudioError, WorkspaceError
from dsmoe_core.loopback import LOOPBACK, free_port
from dsmoe_core.progress import StatusCallback
from pipelines.services.ml_backend.credentials import Credentials, load_or_create_credentials

_STOP_TIMEOUT_S = 10.0
_START_TIMEOUT_S = 240.0  # importing torch takes seconds, on a busy machine tens of seconds
_LOCK_TIMEOUT_S = 1.0  # a status check holds the lock for a moment


@dataclass(frozen=True, slots=True)
class MLBackendStatus:
    """Status of a workspace's ML backend.

    Attributes:
        running: its process is alive.
        pid: of the process; None where it does not run.
        url: its address.
        version: of the served model; None where the process does not respond, or has no model.
        problem: why the champion is not served; None where it is.
        log: its log file.
    """

    running: bool
    pid: int | None
    url: str
    version: str | None
    problem: str | None
    log: Path


class MLBackendProcess:
    """Starts, finds and stops the ML backend of one workspace.

    Args:
        workspace: its folder.
        port: on loopback; if it is taken, ``up`` uses the next free one. A running ML backend keeps its port.
    """

    def __init__(self, workspace: Path, port: int) -> None:
        self._workspace = workspace.resolve()
        folder = self._workspace / "studio"
        self.log = folder / "ml-backend.log"
        self._port = port
        self._lock = folder / "ml-backend.lock"
        self.credentials_path = folder / "ml-backend.json"

    def credentials(self) -> Credentials:
        """Credentials of the workspace's ML backend, created on first use."""
        return load_or_create_credentials(self.credentials_path)

    def up(self, on_status: StatusCallback) -> str:
        """Start the process unless it runs, and wait until a model is served.

        Returns:
            Its address.

        Raises:
            StudioError: no port is free, or the process ended or hung while starting.
        """
        self.credentials()
        if self._lock_holder() is not None:
            return self._wait_until_ready(on_status, lambda: self._lock_holder() is None)
        self._port = free_port(self._port, "live pre-annotations", StudioError, fixed=False)
        exit_pipe = self._start()
        try:
            return self._wait_until_ready(on_status, lambda: bool(select.select([exit_pipe], [], [], 0)[0]))
        finally:
            os.close(exit_pipe)

    def down(self) -> bool:
        """Stop the process; returns whether it ran."""
        holder = self._lock_holder()
        if holder is None:
            return False
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.kill(holder["pid"], sign)
            except ProcessLookupError:
                break
            deadline = time.monotonic() + _STOP_TIMEOUT_S
            while self._lock_holder() is not None and time.monotonic() < deadline:
                time.sleep(0.05)
            if self._lock_holder() is None:
                break
        return True

    def status(self) -> MLBackendStatus:
        """Whether the process runs and which model it serves; starts nothing."""
        holder = self._lock_holder()
        url = f"http://{LOOPBACK}:{holder['port'] if holder else self._port}"
        health: dict[str, Any] = {}
        if holder:
            credentials = self.credentials()
            auth = (credentials.username, credentials.password)
            try:
                response = httpx.get(f"{url}/health", auth=auth, timeout=5, trust_env=False)
                health = response.json() if response.is_success else {}
            except (httpx.HTTPError, ValueError):
                health = {}
        pid = holder["pid"] if holder else None
        return MLBackendStatus(
            holder is not None, pid, url, health.get("model_version"), health.get("problem"), self.log
        )

    @contextmanager
    def hold_lock(self, host: str = LOOPBACK, *, fixed_port: bool = True) -> Iterator[int]:
        """Hold the lock for the length of the block; called in the ML backend's process.

        Args:
            host: address that it will listen on.
            fixed_port: no other port is used where this one is taken; otherwise the next free one is.

        Yields:
            The port to listen on.

        Raises:
            WorkspaceError: another process holds the lock.
            StudioError: the port is taken.
        """
        with self._lock.open("a+", encoding="utf-8") as file:
            deadline = time.monotonic() + _LOCK_TIMEOUT_S
            while not _try_lock(file, fcntl.LOCK_EX):
                if time.monotonic() > deadline:
                    raise WorkspaceError(
                        f"another ML backend serves {self._workspace}", "Stop it with `dsmoe services down`."
                    )
                time.sleep(0.05)
            self._port = free_port(
                self._port, "live pre-annotations", StudioError, fixed=fixed_port, host=host
            )
            file.truncate(0)
            file.write(json.dumps({"pid": os.getpid(), "port": self._port}))
            file.flush()
            yield self._port

    def _lock_holder(self) -> dict[str, int] | None:
        """Process id and port of the running ML backend; None where none runs."""
        try:
            with self._lock.open("r+", encoding="utf-8") as file:
                content = None if _try_lock(file, fcntl.LOCK_SH) else json.loads(file.read() or "{}")
            return {"pid": content["pid"], "port": content["port"]} if content else None
        except (FileNotFoundError, ValueError):
            return None

    def _start(self) -> int:
        """Start the process; returns the read end of a pipe that becomes readable when the process ends."""
        command = [sys.executable, "-m", "pipelines.cli", "backend", str(self._workspace)]
        command += ["--port", str(self._port)]
        self.log.touch(0o600)
        # A shell that ends at once detaches the process, so that it leaves no zombie when it ends.
        detach = 'log=$1; shift; "$@" </dev/null >"$log" 2>&1 &'
        read_end, write_end = os.pipe()
        try:
            subprocess.run(
                ["/bin/sh", "-c", detach, "sh", str(self.log), *command],
                check=True,
                pass_fds=(write_end,),
                start_new_session=True,  # Ctrl-C in the terminal must not end it
            )
        finally:
            os.close(write_end)
        return read_end

    def _wait_until_ready(self, on_status: StatusCallback, ended: Callable[[], bool]) -> str:
        """Wait until the process serves a model or reports why it cannot.

        Returns:
            Its address.

        Raises:
            StudioError: the process ended, or did not respond in time.
        """
        started = time.monotonic()
        while True:
            has_ended, status = ended(), self.status()  # in this order: another process may have taken over
            if status.version or status.problem:
                return status.url
            seconds = time.monotonic() - started
            if has_ended and not status.running:
                raise self._start_error("ended while starting")
            if seconds > _START_TIMEOUT_S:
                raise self._start_error(f"did not respond within {seconds:.0f} s")
            on_status(f"loading the model for live pre-annotations ({seconds:.0f} s)")
            time.sleep(0.5)

    def _start_error(self, what: str) -> StudioError:
        return StudioError(
            f"the ML backend for live pre-annotations {what}. The end of its log:\n{log_tail(self.log)}\n",
            f"Read the full log in {self.log}, then run `dsmoe services up` again.",
        )


def _try_lock(file: TextIO, kind: int) -> bool:
    """Lock a file without waiting; returns whether that succeeded."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
