"""The largest resident memory of this process, since its start or since a reset."""

from __future__ import annotations

from pathlib import Path

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
RESET_PEAK = "5"
"""Written to ``clear_refs``, it sets the peak to the present use (proc(5))."""


def peak_memory_mb() -> float:
    """Peak of the resident memory of this process, in 1e6 bytes; Linux only.

    Not from getrusage, which in a new process starts with the peak of its parent.
    """
    kib = next(line.split()[1] for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return round(int(kib) * 1024 / 1e6, 1)


def reset_peak_memory() -> bool:
    """Make the present use of memory the new peak; return whether the system allows it (Linux does)."""
    try:
        CLEAR_REFS.write_text(RESET_PEAK)
    except OSError:
        return False
    return True
