"""The back end as a process of its own: credentials, start, stop, and whether it runs.

Whether it runs is told by a lock that it holds: the lock goes with the process, however that ends, and no
other process can be taken for it.
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
from dsmoe_core.loopback import LOOPBACK, check_port_is_free
from dsmoe_core.progress import StatusCallback
from pipelines.services.ml_backend.credentials import Credentials, load_or_create_credentials

_STOP_S = 10.0
_START_S = 240.0  # torch alone takes seconds to import, on a busy machine many
_LOOK_S = 1.0  # whoever looks whether the lock is held, holds it for a moment


@dataclass(frozen=True, slots=True)
class MLBackendStatus:
    """Whether the back end of a workspace runs.

    Attributes:
        running: its process is alive.
        version: of the model that answers; None where it does not answer, or has no model.
        problem: why the present champion is not the one that answers.
    """

    running: bool
    pid: int | None
    url: str
    version: str | None
    problem: str | None
    log: Path


class MLBackendProcess:
    """Starts, finds and stops the back end of one workspace.

    Args:
        workspace: its folder.
        port: on loopback. One that runs already keeps the port it has.
    """

    def __init__(self, workspace: Path, port: int) -> None:
        self._workspace = workspace.resolve()
        folder = self._workspace / "studio"
        self.log = folder / "back-end.log"
        self._port = port
        self._lock = folder / "back-end.lock"
        self.kept = folder / "back-end.json"

    def credentials(self) -> Credentials:
        """See ``load_or_create_credentials``."""
        return load_or_create_credentials(self.kept)

    def up(self, on_status: StatusCallback) -> str:
        """Start it unless it runs, wait until its model answers, and return its address.

        Raises:
            StudioError: the port is in use, or it ended or hung while starting.
        """
        self.credentials()
        if self._holder() is not None:
            return self._answering(on_status, lambda: self._holder() is None)
        self._need_port()
        end = self._start()
        try:
            return self._answering(on_status, lambda: bool(select.select([end], [], [], 0)[0]))
        finally:
            os.close(end)

    def down(self) -> bool:
        """Stop it; says whether it ran."""
        holder = self._holder()
        if holder is None:
            return False
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.kill(holder["pid"], sign)
            except ProcessLookupError:
                break
            deadline = time.monotonic() + _STOP_S
            while self._holder() is not None and time.monotonic() < deadline:
                time.sleep(0.05)
            if self._holder() is None:
                break
        return True

    def status(self) -> MLBackendStatus:
        """Whether it runs and what answers, without starting anything."""
        holder = self._holder()
        url = f"http://{LOOPBACK}:{holder['port'] if holder else self._port}"
        said: dict[str, Any] = {}
        if holder:
            signed = self.credentials()
            try:
                answer = httpx.get(
                    f"{url}/health", auth=(signed.username, signed.password), timeout=5, trust_env=False
                )
                said = answer.json() if answer.is_success else {}
            except (httpx.HTTPError, ValueError):
                said = {}
        pid = holder["pid"] if holder else None
        return MLBackendStatus(
            holder is not None, pid, url, said.get("model_version"), said.get("problem"), self.log
        )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be the back end of this workspace: called by the process itself.

        Raises:
            WorkspaceError: another one is.
        """
        with self._lock.open("a+", encoding="utf-8") as file:
            deadline = time.monotonic() + _LOOK_S
            while not _taken(file, fcntl.LOCK_EX):
                if time.monotonic() > deadline:
                    raise WorkspaceError(
                        f"{self._workspace} has a back end already", "Stop it with `dsmoe services down`."
                    )
                time.sleep(0.05)
            file.truncate(0)
            file.write(json.dumps({"pid": os.getpid(), "port": self._port}))
            file.flush()
            yield

    def _holder(self) -> dict[str, int] | None:
        """Process and port of the one that runs."""
        try:
            with self._lock.open("r+", encoding="utf-8") as file:
                kept = None if _taken(file, fcntl.LOCK_SH) else json.loads(file.read() or "{}")
            return {"pid": kept["pid"], "port": kept["port"]} if kept else None
        except (FileNotFoundError, ValueError):
            return None

    def _start(self) -> int:
        """Start it; gives the end of a pipe that can be read once the process is gone."""
        command = [sys.executable, "-m", "pipelines.cli", "backend", str(self._workspace)]
        command += ["--port", str(self._port)]
        self.log.touch(0o600)
        # Through a shell that ends at once: the process is nobody's child, so nobody has to wait for it.
        detach = 'log=$1; shift; "$@" </dev/null >"$log" 2>&1 &'
        ours, its = os.pipe()
        try:
            subprocess.run(
                ["/bin/sh", "-c", detach, "sh", str(self.log), *command],
                check=True,
                pass_fds=(its,),
                start_new_session=True,  # Ctrl-C in our terminal must not reach it
            )
        finally:
            os.close(its)
        return ours

    def _answering(self, on_status: StatusCallback, ended: Callable[[], bool]) -> str:
        """Its address, once its model answers or is known not to.

        Raises:
            StudioError: it ended or hung.
        """
        began = time.monotonic()
        while True:
            gone, now = ended(), self.status()  # in this order: another may have taken its place
            if now.version or now.problem:
                return now.url
            seconds = time.monotonic() - began
            if gone and not now.running:
                raise self._failed("ended while it was starting")
            if seconds > _START_S:
                raise self._failed(f"did not answer within {seconds:.0f} s")
            on_status(f"reading the model for live pre-annotations ({seconds:.0f} s)")
            time.sleep(0.5)

    def _need_port(self) -> None:
        try:
            check_port_is_free(self._port, "live pre-annotations", StudioError)
        except StudioError as error:
            raise StudioError(
                error.problem, "Set another studio.ml_backend_port in dsmoe.yaml, or end that program."
            ) from error

    def _failed(self, what: str) -> StudioError:
        return StudioError(
            f"the back end for live pre-annotations {what}. The end of its log:\n{log_tail(self.log)}\n",
            f"Read the whole log in {self.log}, then run `dsmoe services up` again.",
        )


def _taken(file: TextIO, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
