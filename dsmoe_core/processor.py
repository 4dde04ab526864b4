"""The processor of this machine."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def processor_name() -> str:
    """Name of the processor, as the system reports it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def available_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_loaded() -> bool:
    """Whether more tasks than this process has cores wanted to run, on average over the last minute.

    False where the system does not report its load.
    """
    try:
        return os.getloadavg()[0] > available_cores()
    except (AttributeError, OSError):
        return False
