"""Keeps memory that the network frees, so that the next pass does not ask the system for it again.

By default glibc gives blocks of more than 32 MiB back to the system when they are freed. A pass over a batch
allocates and frees many such maps, and the kernel clears each new one page by page. On a processor this made
an image in a batch of four of ``base`` at 640 px take 1.3 times as long as a single image.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3)."""
LARGEST_KEPT = 1 << 30
"""Blocks of up to this many bytes come from memory that stays with the process."""
LARGEST_FREE_TOP = (1 << 31) - 1
"""Bytes that may be free at the end of that memory before glibc shrinks it."""


@cache
def keep_freed_memory() -> bool:
    """Let this process keep up to 2 GiB of freed memory; return whether its C library can.

    glibc can; versions before 2.35 may refuse the threshold, and musl has none. Then nothing changes.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl
        return False
    # glibc adapts both to the program until one of them is set, so both are set.
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT) and mallopt(M_TRIM_THRESHOLD, LARGEST_FREE_TOP))
