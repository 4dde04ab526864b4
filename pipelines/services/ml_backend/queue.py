"""Bounded, prioritised request queue in front of one batching worker."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from dsmoe_core.errors import ServiceError

T = TypeVar("T")
R = TypeVar("R")


@dataclass(order=True)
class _QueueEntry(Generic[T, R]):
    """A queued item; sorted by priority (0 is urgent), then by order of arrival.

    Attributes:
        waiters: callers that wait for the result.
    """

    priority: int
    number: int
    item: T = field(compare=False)
    result: asyncio.Future[R] = field(compare=False)
    waiters: int = field(default=0, compare=False)


class RequestQueue(Generic[T, R]):
    """Callers submit an item and wait for its result; equal items share one entry.

    Args:
        process: computes a batch: one result or exception for each item, in order. Only one call runs at a
            time.
        max_waiting: entries; a further item is refused.
        batch: items in one call of ``process``. While the worker is busy the queue grows, so batches fill.
    """

    def __init__(
        self,
        process: Callable[[Sequence[T]], Awaitable[Sequence[R | Exception]]],
        *,
        max_waiting: int,
        batch: int,
    ) -> None:
        self._process = process
        self._max_waiting = max_waiting
        self._batch = batch
        self._entries: dict[T, _QueueEntry[T, R]] = {}
        self._not_empty = asyncio.Event()
        self._numbers = itertools.count()

    @property
    def waiting(self) -> int:
        """Number of entries that the worker has not taken yet."""
        return len(self._entries)

    async def submit(self, item: T, *, urgent: bool, timeout_s: float) -> R:
        """Queue an item and wait for its result.

        Args:
            item: hashable; equal items are processed once.
            urgent: process it before all items that are not urgent.
            timeout_s: seconds to wait.

        Raises:
            ServiceError: the queue is full.
            TimeoutError: there was no result in time. An item without a waiting caller is not processed.
        """
        entry = self._entries.get(item)
        if entry is None:
            if len(self._entries) >= self._max_waiting:
                raise ServiceError(
                    f"the queue is full: {self._max_waiting} requests are waiting", "Try again in a second."
                )
            result: asyncio.Future[R] = asyncio.get_running_loop().create_future()
            entry = _QueueEntry(0 if urgent else 1, next(self._numbers), item, result)
            self._entries[item] = entry
            self._not_empty.set()
        entry.waiters += 1
        try:
            return await asyncio.wait_for(asyncio.shield(entry.result), timeout_s)
        finally:
            entry.waiters -= 1
            if not entry.waiters and not entry.result.done():
                entry.result.cancel()
                if self._entries.get(item) is entry:  # a later submit of the same item makes a new entry
                    del self._entries[item]

    async def run_worker(self) -> None:
        """Process batches until cancelled."""
        while True:
            while not self._entries:
                self._not_empty.clear()
                await self._not_empty.wait()
            entries = sorted(self._entries.values())[: self._batch]
            for entry in entries:
                del self._entries[entry.item]
            await self._process_entries(entries)

    async def _process_entries(self, entries: Sequence[_QueueEntry[T, R]]) -> None:
        results: Sequence[R | Exception]
        try:
            results = await self._process([entry.item for entry in entries])
        except Exception as error:  # noqa: BLE001  # raised for every caller; the worker goes on
            results = [error] * len(entries)
        for entry, result in zip(entries, results, strict=True):
            if entry.result.done():
                continue
            if isinstance(result, Exception):
                entry.result.set_exception(result)
            else:
                entry.result.set_result(result)
