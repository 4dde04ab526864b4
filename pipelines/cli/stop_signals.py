"""SIGINT and SIGTERM for a command that works in steps."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """Whether the process was asked to stop.

    The first signal raises KeyboardInterrupt only within ``interruptible``; elsewhere, as while a file is
    closed, it is remembered until ``check``. The second one raises at once. The handler takes no lock.
    """

    def __init__(self) -> None:
        self._requested = False
        self._interruptible = False

    def check(self) -> None:
        """Raise KeyboardInterrupt if the process was asked to stop."""
        if self._requested:
            raise KeyboardInterrupt

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Within the block a signal raises KeyboardInterrupt; one that came before raises at its start."""
        self._interruptible = True
        try:
            self.check()
            yield
        finally:
            self._interruptible = False

    def sleep(self, seconds: float) -> bool:
        """Wait so many seconds, interruptibly; returns False, as a request to stop raises."""
        with self.interruptible():
            time.sleep(seconds)
        return False

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle the signals within the block; their earlier handlers are set again after it."""
        earlier = {sign: signal.signal(sign, self._handle) for sign in STOP_SIGNALS}
        try:
            yield
        finally:
            for sign, handler in earlier.items():
                signal.signal(sign, handler)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        again, self._requested = self._requested, True
        if again or self._interruptible:
            raise KeyboardInterrupt
