"""Prepares training steps in background threads, so that a GPU does not wait for images."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

_T = TypeVar("_T")
MAX_THREADS = 8


def prefetch_threads(device: torch.device) -> int:
    """Return how many threads prepare steps for a network on this device.

    0 on a CPU, where the threads would compete with the training.
    """
    return 0 if device.type == "cpu" else min(MAX_THREADS, os.cpu_count() or 1)


def prefetch(load: Callable[[int], _T], steps: range, threads: int) -> Generator[_T, None, None]:
    """Yield ``load(step)`` for every step in order, computed up to ``threads`` steps ahead.

    With 0 threads this is ``map(load, steps)``. An exception of ``load`` is raised at its step.

    Args:
        load: a function of the step number only.
        steps: step numbers.
        threads: number of threads.
    """
    if not threads:
        yield from map(load, steps)
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="prefetch")
    try:
        pending: deque[Future[_T]] = deque()
        for step in steps:
            pending.append(pool.submit(load, step))
            if len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
