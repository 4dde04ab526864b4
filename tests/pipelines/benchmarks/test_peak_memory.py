"""Peak memory of a process."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PEAKS = """
import json, sys
import numpy as np
from dsmoe_core.allocator import keep_freed_memory
from pipelines.benchmarks.peak_memory import peak_memory_mb, reset_peak_memory

if sys.argv[1] == "kept":
    keep_freed_memory()
peaks = []
for megabytes in (600, 0, 100):
    assert reset_peak_memory()
    block = np.ones(megabytes * 1_000_000, dtype=np.uint8)
    peaks.append(peak_memory_mb())
    del block
    peaks.append(peak_memory_mb())
print(json.dumps(peaks))
"""


@pytest.mark.parametrize("memory", ["kept", "given back"])
def test_peak_is_that_since_the_last_reset(memory: str) -> None:
    """Also where freed memory stays with the process."""
    command = [sys.executable, "-c", PEAKS, memory]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    large, after_large, nothing, _, small, _ = json.loads(done.stdout)
    assert after_large == pytest.approx(large, abs=1)
    assert large - nothing == pytest.approx(600, abs=60)
    assert small - nothing == pytest.approx(100, abs=60)
