"""Log excerpts for error messages."""

from __future__ import annotations

from pathlib import Path

_LINES = 15


def log_tail(log: Path) -> str:
    """The last lines of a log file, indented, for an error message."""
    lines = log.read_text("utf-8", "replace").splitlines()[-_LINES:] if log.exists() else []
    return "\n".join(f"  {line}" for line in lines) or "  (empty)"
