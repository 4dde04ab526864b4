"""Inference server as a child process: start, readiness, and stop together with the parent process."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from dsmoe_core.errors import LanguageModelError
from dsmoe_core.loopback import LOOPBACK
from dsmoe_core.progress import StatusCallback

_POLL_S = 0.5
_HANG_TIMEOUT_S = 600.0  # without new output in the log; a download of weights writes to it
_STOP_TIMEOUT_S = 15.0
_TAIL_LINES = 15
_LOG_PREFIX = re.compile(r"^(\(.*?pid=\d+\) )?([A-Z]+ \d\d-\d\d [\d:]+ )?(\[\S+:\d+\] )?")
_ERROR_LINE = re.compile(r"^\w*(Error|Exception)\b: .+")
# Reads a pipe from this process; when the pipe closes, it ends the engine's process group.
_GUARD = 'read _; kill -s TERM -- "-$1"; sleep 15; kill -s KILL -- "-$1"'


class EngineProcess:
    """A running engine."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self._process = process
        self._port = port
        self._log = log

    def wait_until_ready(self, on_status: StatusCallback) -> None:
        """Wait until the server answers.

        Raises:
            LanguageModelError: the process ended, or wrote nothing to its log for ten minutes.
        """
        started = last_output = time.monotonic()
        size = 0
        while not _is_ready(self._port):
            now = time.monotonic()
            if self._process.poll() is not None:
                raise self._error(f"ended while starting (exit code {self._process.returncode})")
            if (grown := self._log.stat().st_size) != size:
                size, last_output = grown, now
            if now - last_output > _HANG_TIMEOUT_S:
                raise self._error(f"wrote no log output for {now - last_output:.0f} s while starting")
            on_status(f"starting the engine ({now - started:.0f} s)")
            time.sleep(_POLL_S)

    def wait_until_ended(self) -> None:
        """Wait until the process ends, which is always an error.

        Raises:
            LanguageModelError: the process ended.
        """
        code = self._process.wait()
        raise self._error(f"ended (exit code {code})")

    def stop(self) -> None:
        """Stop the engine and its child processes."""
        try:
            if self._process.poll() is None:
                self._process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(_STOP_TIMEOUT_S)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _error(self, what: str) -> LanguageModelError:
        lines = [_LOG_PREFIX.sub("", line) for line in self._log.read_text("utf-8", "replace").splitlines()]
        # The engine's own error; the later "Engine core initialization failed" does not name the cause.
        causes = [line for line in lines if _ERROR_LINE.match(line) and "Engine core init" not in line]
        cause = f": {causes[-1][:300]}" if causes else ""
        tail = "\n".join(f"  {line}" for line in lines[-_TAIL_LINES:])
        return LanguageModelError(
            f"the engine {what}{cause}\n{tail or '  (its log is empty)'}",
            f"Read the full log in {self._log}, then start it again.",
        )


@contextmanager
def running_engine(
    command: Sequence[str], variables: Mapping[str, str], *, port: int, log: Path
) -> Iterator[EngineProcess]:
    """Run an engine for the length of the block; it is stopped even if this process is killed.

    Args:
        command: program and arguments.
        variables: its whole environment.
        port: that it listens on.
        log: file for its output, overwritten.

    Raises:
        LanguageModelError: the program cannot be started.
    """
    with log.open("wb") as file:
        try:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=dict(variables),
                cwd=log.parent,
                start_new_session=True,  # Ctrl-C in the terminal is handled by this process
            )
        except OSError as error:
            raise LanguageModelError(
                f"{command[0]} cannot be run: {error.strerror}",
                "Remove the folder of its environment, so that it is built again.",
            ) from error
    engine = EngineProcess(process, port, log)
    try:
        guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "sh", str(process.pid)], stdin=subprocess.PIPE, start_new_session=True
        )
        try:
            yield engine
        finally:
            engine.stop()
            guard.kill()
            guard.communicate()
    finally:
        engine.stop()


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM and SIGHUP for the length of the block, so that cleanup runs."""
    signals = (signal.SIGTERM, signal.SIGHUP)
    previous = [signal.signal(kind, signal.default_int_handler) for kind in signals]
    try:
        yield
    finally:
        for kind, handler in zip(signals, previous, strict=True):
            signal.signal(kind, handler)


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
