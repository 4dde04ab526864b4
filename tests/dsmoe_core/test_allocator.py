"""Memory of freed maps stays with the process."""

from __future__ import annotations

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

if sys.argv[1] == "kept" and not keep_freed_memory():
    sys.exit(3)
for _ in range(4):  # glibc needs some rounds, because aligned blocks are a little larger than the freed ones
    new_pages()
print(new_pages())
"""


def new_pages(memory: str) -> int:
    """Pages that the system provides for five maps of 64 MiB, each freed before the next."""
    command = [sys.executable, "-c", REPEATED_MAPS, memory]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 3:
        pytest.skip("this C library cannot keep freed memory")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_freed_maps_are_used_again() -> None:
    assert new_pages("kept") < new_pages("as it is") / 20
