"""A bounded line of requests before one worker, who takes as many at once as are waiting, up to a batch."""

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
    """A place in the line: the urgent before the patient, then who came first."""

    patience: int
    number: int
    item: T = field(compare=False)
    answer: asyncio.Future[R] = field(compare=False)
    waiting: int = field(default=0, compare=False)


class RequestQueue(Generic[T, R]):
    """Whoever asks waits for the worker; equal questions share one place.

    Args:
        work: answers a batch, one answer or exception for each item, in order. Called by one worker, never
            twice at once.
        most: places; who comes to a full line is refused at once.
        batch: items at once. While the worker is busy the line grows, so that batches fill by themselves.
    """

    def __init__(
        self, work: Callable[[Sequence[T]], Awaitable[Sequence[R | Exception]]], *, most: int, batch: int
    ) -> None:
        self._work = work
        self._most = most
        self._batch = batch
        self._places: dict[T, _QueueEntry[T, R]] = {}
        self._come = asyncio.Event()
        self._numbers = itertools.count()

    @property
    def waiting(self) -> int:
        """Places taken by those who are not being served yet."""
        return len(self._places)

    async def ask(self, item: T, *, urgent: bool, within_s: float) -> R:
        """Wait for the answer.

        Raises:
            ServiceError: the line is full.
            TimeoutError: the answer did not come in time. Where nobody else waits, it is not worked on.
        """
        place = self._places.get(item)
        if place is None:
            if len(self._places) >= self._most:
                raise ServiceError(f"{self._most} requests are waiting already", "Ask again in a second.")
            answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
            place = _QueueEntry(0 if urgent else 1, next(self._numbers), item, answer)
            self._places[item] = place
            self._come.set()
        place.waiting += 1
        try:
            return await asyncio.wait_for(asyncio.shield(place.answer), within_s)
        finally:
            place.waiting -= 1
            if not place.waiting and not place.answer.done():
                place.answer.cancel()
                if self._places.get(item) is place:  # who asks again begins anew
                    del self._places[item]

    async def serve(self) -> None:
        """Be the worker, until cancelled."""
        while True:
            while not self._places:
                self._come.clear()
                await self._come.wait()
            places = sorted(self._places.values())[: self._batch]
            for place in places:
                del self._places[place.item]
            await self._serve(places)

    async def _serve(self, places: Sequence[_QueueEntry[T, R]]) -> None:
        answers: Sequence[R | Exception]
        try:
            answers = await self._work([place.item for place in places])
        except Exception as error:  # noqa: BLE001  # every one of them must hear of it, and the worker lives on
            answers = [error] * len(places)
        for place, answer in zip(places, answers, strict=True):
            if place.answer.done():
                continue
            if isinstance(answer, Exception):
                place.answer.set_exception(answer)
            else:
                place.answer.set_result(answer)
