"""Batches drawn ahead by threads are those that are drawn when they are wanted."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from tiny import QUICK, Killed, train

from dsmoe_core import train as training_loop
from dsmoe_core.checkpoint import WEIGHTS, read_tensors
from dsmoe_core.data.letterbox_cache import CacheConfig
from dsmoe_core.schema import LabelledImage, Vocabulary
from dsmoe_core.training.prefetch import MOST, prefetch, prefetch_threads


@pytest.mark.parametrize("threads", [0, 1, 3, 20])
@pytest.mark.parametrize("steps", [range(0), range(1), range(4, 11)], ids=str)
def test_steps_come_in_order_and_once(threads: int, steps: range) -> None:
    asked: list[int] = []

    def draw(step: int) -> int:
        asked.append(step)
        return step * step

    assert list(prefetch(draw, steps, threads)) == [step * step for step in steps]
    assert sorted(asked) == list(steps)


def test_so_many_are_drawn_at_once_as_there_are_threads_while_one_is_learned() -> None:
    together = threading.Barrier(3, timeout=30)

    def draw(step: int) -> str:
        together.wait()  # passes when three threads are here
        return threading.current_thread().name

    names = list(prefetch(draw, range(6), 3))
    assert len(set(names)) == 3
    drawn = threading.Semaphore(0)
    steps = prefetch(lambda step: (drawn.release(), step)[1], range(9), 2)
    assert next(steps) == 0
    for _ in range(3):  # the one that is learned, and two ahead of it
        assert drawn.acquire(timeout=30)
    assert not drawn.acquire(timeout=0.2), "the third ahead waits for its turn"


def test_what_goes_wrong_comes_out_at_its_step_and_ends_the_threads() -> None:
    def draw(step: int) -> int:
        if step == 2:
            raise OSError("the disk is gone")
        return step

    steps = prefetch(draw, range(100), 4)
    assert [next(steps), next(steps)] == [0, 1]
    with pytest.raises(OSError, match="the disk is gone"):
        next(steps)
    assert not [t for t in threading.enumerate() if t.name.startswith("draws")]


def test_none_draw_ahead_for_a_processor_and_some_for_a_gpu() -> None:
    assert prefetch_threads(torch.device("cpu")) == 0
    assert 1 <= prefetch_threads(torch.device("cuda")) <= MOST


@pytest.mark.parametrize("cached", [False, True])
def test_a_training_that_draws_ahead_and_is_killed_ends_bit_for_bit_like_one_that_does_not(
    cached: bool,
    tmp_path: Path,
    images: list[LabelledImage],
    vocabulary: Vocabulary,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train(tmp_path / "plain", images, vocabulary, training=QUICK)
    monkeypatch.setattr(training_loop, "prefetch_threads", lambda _: 3)
    cache = CacheConfig(tmp_path / "cache") if cached else None
    with pytest.raises(Killed):
        train(tmp_path / "ahead", images, vocabulary, training=QUICK, cache=cache, kill_at=3)
    train(tmp_path / "ahead", images, vocabulary, training=QUICK, cache=cache)
    plain, ahead = (read_tensors(tmp_path / name / WEIGHTS)[0] for name in ("plain", "ahead"))
    assert [name for name, tensor in plain.items() if not torch.equal(tensor, ahead[name])] == []
