"""Memory of freed maps stays with the process."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

REPEATED_MAPS = """
import resource, sys
import torch
from dsmoe_core.allocator import keep_freed_memory

def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.empty(16 << 20).fill_(1.0)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "kept":
    assert keep_freed_memory()
for _ in range(4):  # glibc needs some rounds, because aligned blocks are a little larger than the freed ones
    new_pages()
print(new_pages())
"""


def new_pages(memory: str) -> int:
    """Pages that the system provides for five maps of 64 MiB, each freed before the next."""
    command = [sys.executable, "-c", REPEATED_MAPS, memory]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def glibc_version() -> tuple[int, ...]:
    """Empty with another C library."""
    name, version = platform.libc_ver()
    return tuple(map(int, version.split("."))) if name == "glibc" else ()


@pytest.mark.skipif(glibc_version() < (2, 36), reason="older versions may refuse the thresholds")
@pytest.mark.slow
def test_freed_maps_are_used_again() -> None:
    assert new_pages("kept") < new_pages("as it is") / 20
