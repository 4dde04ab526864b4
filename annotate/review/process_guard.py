"""Child processes that end when the process that started them ends.

``start`` runs this file as a guard between this process and the program. The guard's standard input is a
pipe from this process. When this process ends in any way, even by ``kill -9``, the pipe closes and the guard
terminates the program. So no database keeps running and holding its folder. The guard uses the standard
library only and starts within milliseconds.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

GRACE_SECONDS = 15.0
"""Time for the program to terminate before the guard kills it."""
STOP_SECONDS = 20.0
"""Time to wait for the guard in ``stop``."""


def start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a program under a guard.

    Args:
        log: file for the program's output.

    Returns:
        The guard's process. Its exit code is that of the program.

    Raises:
        OSError: the log file cannot be written.
    """
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-I", __file__, *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def stop(guard: subprocess.Popen[bytes]) -> None:
    """Terminate a guarded program and wait until it has ended. The guard kills it after GRACE_SECONDS."""
    if guard.stdin is not None:
        guard.stdin.close()
    try:
        guard.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        return


def run_guarded(command: list[str]) -> int:
    """Run a program until it ends or standard input closes. Returns its exit code."""
    # Ctrl-C reaches the whole process group. Ignore it here: the parent process decides what to do.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    program = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def terminate_with_parent() -> None:
        # Not sys.stdin: this thread would hold its lock when Python shuts down.
        while os.read(0, 1024):
            pass
        program.terminate()
        try:
            program.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:  # FiftyOne's server waits long for a database that ended before it
            program.kill()

    threading.Thread(target=terminate_with_parent, daemon=True).start()
    return program.wait()


if __name__ == "__main__":
    sys.exit(run_guarded(sys.argv[1:]))
