"""A language model's server as a process below ours: started, waited for, stopped with us, however we end."""

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

_LOOK_S = 0.5
_HUNG_S = 600.0  # without a word in the log; a download of weights writes there
_STOP_S = 15.0
_TAIL_LINES = 15
_PREFIX = re.compile(r"^(\(.*?pid=\d+\) )?([A-Z]+ \d\d-\d\d [\d:]+ )?(\[\S+:\d+\] )?")
_CAUSE = re.compile(r"^\w*(Error|Exception)\b: .+")
# Ours holds a pipe to it; where that closes, the engine's whole group is ended.
_GUARD = 'read _; kill -s TERM -- "-$1"; sleep 15; kill -s KILL -- "-$1"'


class EngineProcess:
    """One that runs."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self._process = process
        self._port = port
        self._log = log

    def wait_until_ready(self, on_status: StatusCallback) -> None:
        """Until it answers.

        Raises:
            LanguageModelError: it ended, or has said nothing for ten minutes.
        """
        began = spoke = time.monotonic()
        size = 0
        while not _answers(self._port):
            now = time.monotonic()
            if self._process.poll() is not None:
                raise self._failed(f"ended while it was starting (exit {self._process.returncode})")
            if (grown := self._log.stat().st_size) != size:
                size, spoke = grown, now
            if now - spoke > _HUNG_S:
                raise self._failed(f"has said nothing for {now - spoke:.0f} s while it was starting")
            on_status(f"starting the engine ({now - began:.0f} s)")
            time.sleep(_LOOK_S)

    def wait_until_ended(self) -> None:
        """For as long as it serves, which is until it is killed.

        Raises:
            LanguageModelError: it ended.
        """
        code = self._process.wait()
        raise self._failed(f"ended (exit {code})")

    def stop(self) -> None:
        """End it and all that it started."""
        try:
            if self._process.poll() is None:
                self._process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(_STOP_S)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _failed(self, what: str) -> LanguageModelError:
        lines = [_PREFIX.sub("", line) for line in self._log.read_text("utf-8", "replace").splitlines()]
        # The engine's own complaint; what follows it only says that there was one.
        causes = [line for line in lines if _CAUSE.match(line) and "Engine core init" not in line]
        cause = f": {causes[-1][:300]}" if causes else ""
        tail = "\n".join(f"  {line}" for line in lines[-_TAIL_LINES:])
        return LanguageModelError(
            f"the engine {what}{cause}\n{tail or '  (its log is empty)'}",
            f"Read the whole log in {self._log}, then start it again.",
        )


@contextmanager
def running_engine(
    command: Sequence[str], variables: Mapping[str, str], *, port: int, log: Path
) -> Iterator[EngineProcess]:
    """The engine, for as long as the block lasts; it ends even where we are killed.

    Args:
        variables: all of its environment.

    Raises:
        LanguageModelError: it cannot be started.
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
                start_new_session=True,  # Ctrl-C in our terminal is ours to handle
            )
        except OSError as error:
            raise LanguageModelError(
                f"{command[0]} cannot be run: {error.strerror}",
                "Remove its environment's folder; it is built again.",
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
    """While the block lasts, SIGTERM and SIGHUP are a KeyboardInterrupt, so that it ends well."""
    kinds = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(kind, signal.default_int_handler) for kind in kinds]
    try:
        yield
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
