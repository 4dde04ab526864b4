"""The line before the worker: order, sharing, limits, and what becomes of those who leave."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from dsmoe_core.errors import ServiceError
from pipelines.services.ml_backend.queue import RequestQueue


class Worker:
    """Doubles numbers once it is let; seven is an error, eight breaks the whole batch."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.batches: list[list[int]] = []

    async def work(self, items: Sequence[int]) -> Sequence[int | Exception]:
        self.batches.append(list(items))
        await self.go.wait()
        if 8 in items:
            raise RuntimeError("eight")
        return [ValueError("seven") if item == 7 else 2 * item for item in items]


def play(scene: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(30):
            await scene

    asyncio.run(limited())


def ask(
    line: RequestQueue[int, int], item: int, *, urgent: bool = False, within_s: float = 30
) -> asyncio.Task[int]:
    return asyncio.create_task(line.ask(item, urgent=urgent, within_s=within_s))


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_the_urgent_come_first_then_who_came_first_in_batches() -> None:
    async def scene() -> None:
        worker = Worker()
        line = RequestQueue(worker.work, most=20, batch=3)
        serving = asyncio.create_task(line.serve())
        asked = [ask(line, 1)]
        await settled()
        asked += [ask(line, n) for n in (2, 3, 4)] + [ask(line, n, urgent=True) for n in (5, 6)]
        await settled()
        assert line.waiting == 5
        worker.go.set()
        assert await asyncio.gather(*asked) == [2, 4, 6, 8, 10, 12]
        assert worker.batches == [[1], [5, 6, 2], [3, 4]]
        serving.cancel()

    play(scene())


def test_equal_questions_share_a_place_and_a_full_line_refuses() -> None:
    async def scene() -> None:
        worker = Worker()
        line = RequestQueue(worker.work, most=2, batch=3)
        asked = [ask(line, n) for n in (1, 1, 2, 1, 2)]
        await settled()
        assert line.waiting == 2
        with pytest.raises(ServiceError, match="2 requests are waiting already"):
            await line.ask(3, urgent=True, within_s=30)
        serving = asyncio.create_task(line.serve())
        worker.go.set()
        assert await asyncio.gather(*asked) == [2, 2, 4, 2, 4]
        assert worker.batches == [[1, 2]]
        serving.cancel()

    play(scene())


def test_who_leaves_frees_the_place_unless_another_still_waits_for_it() -> None:
    async def scene() -> None:
        worker = Worker()
        line = RequestQueue(worker.work, most=5, batch=5)
        gone, impatient, patient = ask(line, 1, within_s=0.01), ask(line, 2, within_s=0.01), ask(line, 2)
        for left in (gone, impatient):
            with pytest.raises(TimeoutError):
                await left
        assert line.waiting == 1
        serving = asyncio.create_task(line.serve())
        worker.go.set()
        assert await patient == 4
        assert await ask(line, 1) == 2  # asked for again, it is worked on
        assert worker.batches == [[2], [1]]
        serving.cancel()

    play(scene())


def test_who_leaves_while_served_spoils_nothing() -> None:
    async def scene() -> None:
        worker = Worker()
        line = RequestQueue(worker.work, most=5, batch=5)
        serving = asyncio.create_task(line.serve())
        left, stays = ask(line, 1, within_s=0.01), ask(line, 2)
        with pytest.raises(TimeoutError):
            await left
        worker.go.set()
        assert await stays == 4
        serving.cancel()

    play(scene())


def test_an_error_reaches_those_it_belongs_to_and_the_worker_goes_on() -> None:
    async def scene() -> None:
        worker = Worker()
        worker.go.set()
        line = RequestQueue(worker.work, most=5, batch=5)
        serving = asyncio.create_task(line.serve())
        got = await asyncio.gather(ask(line, 7), ask(line, 1), return_exceptions=True)
        assert isinstance(got[0], ValueError)
        assert got[1] == 2
        got = await asyncio.gather(ask(line, 8), ask(line, 1), return_exceptions=True)
        assert [type(one) for one in got] == [RuntimeError, RuntimeError]
        assert await ask(line, 1) == 2
        serving.cancel()

    play(scene())
