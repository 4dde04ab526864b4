"""The request queue: order, shared entries, limits, timeouts and errors."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from dsmoe_core.errors import ServiceError
from pipelines.services.ml_backend.queue import RequestQueue


class Worker:
    """Doubles numbers once ``go`` is set; 7 fails alone, 8 fails the whole batch."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.batches: list[list[int]] = []

    async def process(self, items: Sequence[int]) -> Sequence[int | Exception]:
        self.batches.append(list(items))
        await self.go.wait()
        if 8 in items:
            raise RuntimeError("eight")
        return [ValueError("seven") if item == 7 else 2 * item for item in items]


def run_scenario(scenario: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(30):
            await scenario

    asyncio.run(limited())


def submit(
    queue: RequestQueue[int, int], item: int, *, urgent: bool = False, timeout_s: float = 30
) -> asyncio.Task[int]:
    return asyncio.create_task(queue.submit(item, urgent=urgent, timeout_s=timeout_s))


async def run_pending_tasks() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_urgent_items_first_then_in_order_of_arrival_in_batches() -> None:
    async def scenario() -> None:
        worker = Worker()
        queue = RequestQueue(worker.process, max_waiting=20, batch=3)
        worker_task = asyncio.create_task(queue.run_worker())
        results = [submit(queue, 1)]
        await run_pending_tasks()
        results += [submit(queue, n) for n in (2, 3, 4)] + [submit(queue, n, urgent=True) for n in (5, 6)]
        await run_pending_tasks()
        assert queue.waiting == 5
        worker.go.set()
        assert await asyncio.gather(*results) == [2, 4, 6, 8, 10, 12]
        assert worker.batches == [[1], [5, 6, 2], [3, 4]]
        worker_task.cancel()

    run_scenario(scenario())


def test_equal_items_share_an_entry_and_a_full_queue_refuses() -> None:
    async def scenario() -> None:
        worker = Worker()
        queue = RequestQueue(worker.process, max_waiting=2, batch=3)
        results = [submit(queue, n) for n in (1, 1, 2, 1, 2)]
        await run_pending_tasks()
        assert queue.waiting == 2
        with pytest.raises(ServiceError, match="2"):
            await queue.submit(3, urgent=True, timeout_s=30)
        worker_task = asyncio.create_task(queue.run_worker())
        worker.go.set()
        assert await asyncio.gather(*results) == [2, 2, 4, 2, 4]
        assert worker.batches == [[1, 2]]
        worker_task.cancel()

    run_scenario(scenario())


def test_timeout_removes_the_entry_unless_another_caller_waits() -> None:
    async def scenario() -> None:
        worker = Worker()
        queue = RequestQueue(worker.process, max_waiting=5, batch=5)
        alone, first, second = (
            submit(queue, 1, timeout_s=0.01),
            submit(queue, 2, timeout_s=0.01),
            submit(queue, 2),
        )
        for timed_out in (alone, first):
            with pytest.raises(TimeoutError):
                await timed_out
        assert queue.waiting == 1
        worker_task = asyncio.create_task(queue.run_worker())
        worker.go.set()
        assert await second == 4
        assert await submit(queue, 1) == 2  # submitted again, it is processed
        assert worker.batches == [[2], [1]]
        worker_task.cancel()

    run_scenario(scenario())


def test_timeout_during_processing_affects_no_other_caller() -> None:
    async def scenario() -> None:
        worker = Worker()
        queue = RequestQueue(worker.process, max_waiting=5, batch=5)
        worker_task = asyncio.create_task(queue.run_worker())
        timed_out, waiting = submit(queue, 1, timeout_s=0.01), submit(queue, 2)
        with pytest.raises(TimeoutError):
            await timed_out
        worker.go.set()
        assert await waiting == 4
        worker_task.cancel()

    run_scenario(scenario())


def test_error_reaches_its_callers_and_the_worker_goes_on() -> None:
    async def scenario() -> None:
        worker = Worker()
        worker.go.set()
        queue = RequestQueue(worker.process, max_waiting=5, batch=5)
        worker_task = asyncio.create_task(queue.run_worker())
        got = await asyncio.gather(submit(queue, 7), submit(queue, 1), return_exceptions=True)
        assert isinstance(got[0], ValueError)
        assert got[1] == 2
        got = await asyncio.gather(submit(queue, 8), submit(queue, 1), return_exceptions=True)
        assert [type(result) for result in got] == [RuntimeError, RuntimeError]
        assert await submit(queue, 1) == 2
        worker_task.cancel()

    run_scenario(scenario())
