"""Ctrl-C for programs that a test starts."""

from __future__ import annotations

import signal


def hears_ctrl_c() -> None:
    """For ``preexec_fn``: what a shell starts in the background ignores SIGINT, and so would its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
