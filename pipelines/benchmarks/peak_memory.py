"""The largest resident memory of this process, since its start or since a reset. Linux only."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
RESET_PEAK = "5"
"""Written to ``clear_refs``, it sets the peak to the present use (proc(5))."""


def peak_memory_mb() -> float:
    """Peak of the resident memory of this process since its start or the last reset, in 1e6 bytes.

    Not from getrusage, which in a new process starts with the peak of its parent.
    """
    kib = next(line.split()[1] for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return round(int(kib) * 1024 / 1e6, 1)


def reset_peak_memory() -> bool:
    """Give freed memory back to the system and make the present use the new peak.

    Without the first step, the memory that a process keeps for later (allocator.py) would count.

    Returns:
        Whether this system can do both: Linux with glibc.
    """
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        CLEAR_REFS.write_text(RESET_PEAK)
    except (AttributeError, OSError):
        return False
    return True
