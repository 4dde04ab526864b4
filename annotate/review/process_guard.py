"""Programs that live no longer than the process that started them.

:func:`start` runs this very file between us and the program. It holds the reading end of a pipe whose
writing end we have. However we end, even by ``kill -9``, the pipe closes, and it ends the program in the
program's own orderly way. So no database is left behind holding its folder. Standard library only: the
keeper itself is up in a few milliseconds.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

GRACE_SECONDS = 15.0
STOP_SECONDS = 20.0


def start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a program whose output goes to a log file; its exit code becomes the keeper's.

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


def stop(keeper: subprocess.Popen[bytes]) -> None:
    """End a program and wait until it has ended; one that does not in time is killed by its keeper."""
    if keeper.stdin is not None:
        keeper.stdin.close()
    try:
        keeper.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        return


def keep(command: list[str]) -> int:
    """Run a program until it ends by itself or standard input closes; returns its exit code."""
    # Ctrl-C reaches the whole process group; our owner decides what it means, not we.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    program = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def end_with_owner() -> None:
        # Not sys.stdin, whose lock this thread would hold when Python shuts down.
        while os.read(0, 1024):
            pass
        program.terminate()
        try:
            program.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:  # FiftyOne's server waits long for a database that ended before it
            program.kill()

    threading.Thread(target=end_with_owner, daemon=True).start()
    return program.wait()


if __name__ == "__main__":
    sys.exit(keep(sys.argv[1:]))
