"""Tests of prefetching: order, concurrency, errors, and identical results."""

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
from dsmoe_core.training.prefetch import MAX_THREADS, prefetch, prefetch_threads


@pytest.mark.parametrize("threads", [0, 1, 3, 20])
@pytest.mark.parametrize("steps", [range(0), range(1), range(4, 11)], ids=str)
def test_every_step_is_loaded_once_and_yielded_in_order(threads: int, steps: range) -> None:
    loaded: list[int] = []

    def load(step: int) -> int:
        loaded.append(step)
        return step * step

    assert list(prefetch(load, steps, threads)) == [step * step for step in steps]
    assert sorted(loaded) == list(steps)


def test_as_many_steps_are_loaded_ahead_as_there_are_threads() -> None:
    barrier = threading.Barrier(3, timeout=30)

    def load(step: int) -> str:
        barrier.wait()  # passes when three threads have reached it
        return threading.current_thread().name

    names = list(prefetch(load, range(6), 3))
    assert len(set(names)) == 3
    loaded = threading.Semaphore(0)
    steps = prefetch(lambda step: (loaded.release(), step)[1], range(9), 2)
    assert next(steps) == 0
    for _ in range(3):  # the step in use and two ahead of it
        assert loaded.acquire(timeout=30)
    assert not loaded.acquire(timeout=0.2), "the third step ahead is not loaded yet"


def test_an_exception_is_raised_at_its_step_and_ends_the_threads() -> None:
    def load(step: int) -> int:
        if step == 2:
            raise OSError("the disk is gone")
        return step

    steps = prefetch(load, range(100), 4)
    assert [next(steps), next(steps)] == [0, 1]
    with pytest.raises(OSError, match="the disk is gone"):
        next(steps)
    assert not [t for t in threading.enumerate() if t.name.startswith("prefetch")]


def test_prefetching_is_used_on_a_gpu_only() -> None:
    assert prefetch_threads(torch.device("cpu")) == 0
    assert 1 <= prefetch_threads(torch.device("cuda")) <= MAX_THREADS


@pytest.mark.parametrize("cached", [False, True])
def test_a_resumed_training_with_prefetching_has_the_same_weights_as_one_without(
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
        train(tmp_path / "prefetch", images, vocabulary, training=QUICK, cache=cache, kill_at=3)
    train(tmp_path / "prefetch", images, vocabulary, training=QUICK, cache=cache)
    plain, prefetched = (read_tensors(tmp_path / name / WEIGHTS)[0] for name in ("plain", "prefetch"))
    assert [name for name, tensor in plain.items() if not torch.equal(tensor, prefetched[name])] == []
