"""Batches drawn ahead of the steps that learn them, so that a GPU does not wait for images."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

_T = TypeVar("_T")
MOST = 8


def prefetch_threads(device: torch.device) -> int:
    """How many threads draw batches for a network there.

    None where it computes on the processor: they would only take their time from it.
    """
    return 0 if device.type == "cpu" else min(MOST, os.cpu_count() or 1)


def prefetch(draw: Callable[[int], _T], steps: range, threads: int) -> Iterator[_T]:
    """What ``draw`` makes of every step, in order, as many steps ahead as there are threads.

    The same as ``map(draw, steps)``, for a ``draw`` that hangs on nothing but the step; without threads it is
    that. What ``draw`` raises comes out at its step.
    """
    if not threads:
        yield from map(draw, steps)
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="draws")
    try:
        waiting: deque[Future[_T]] = deque()
        for step in steps:
            waiting.append(pool.submit(draw, step))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
