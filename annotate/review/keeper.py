"""Run a program for as long as the process that started us lives: ``python keeper.py PROGRAM ARGUMENT...``

We hold the reading end of a pipe whose writing end our parent has. However the parent ends, even by
``kill -9``, the pipe closes, and we end the program in its own orderly way. So no database is left behind
holding its folder. Standard library only: this starts in a few milliseconds.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading


def keep(command: list[str]) -> int:
    """Run the command until it ends by itself or standard input closes; returns its exit code."""
    # Ctrl-C reaches the whole process group; the parent decides what it means, not we.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    program = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    def end_with_parent() -> None:
        while sys.stdin.buffer.read(1024):
            pass
        program.terminate()

    threading.Thread(target=end_with_parent, daemon=True).start()
    return program.wait()


if __name__ == "__main__":
    sys.exit(keep(sys.argv[1:]))
