"""Peak memory of this process."""

from __future__ import annotations

import numpy as np

from pipelines.benchmarks.peak_memory import peak_memory_mb, reset_peak_memory

BLOCK_MB = 300


def test_peak_keeps_freed_memory_until_it_is_reset() -> None:
    assert reset_peak_memory()
    before = peak_memory_mb()
    block = np.ones(BLOCK_MB * 1_000_000, dtype=np.uint8)
    assert peak_memory_mb() > before + 0.9 * BLOCK_MB
    del block
    assert peak_memory_mb() > before + 0.9 * BLOCK_MB
    assert reset_peak_memory()
    assert peak_memory_mb() < before + 0.5 * BLOCK_MB
