"""Tests of the micro-batch finder: it halves the micro-batch when memory runs out; results stay the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import QUICK, Killed, train

from dsmoe_core.checkpoint import WEIGHTS, read_tensors
from dsmoe_core.errors import PrerequisiteError
from dsmoe_core.network import DSMoE
from dsmoe_core.schema import LabelledImage, Vocabulary
from dsmoe_core.training.distributed import ProcessGroup
from dsmoe_core.training.microbatch import MicroBatchFinder

FOUR = QUICK.model_copy(update={"batch": 4, "images_seen": 12})
ERRORS = {
    "gpu": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "cpu": RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes."),
}


class LimitedMemory:
    """Makes the network raise an error for more than ``capacity`` images, after the forward pass.

    ``batch_sizes`` records the number of images of every forward pass.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: RuntimeError, capacity: int = 10**9) -> None:
        self.capacity, self.batch_sizes = capacity, []
        forward = DSMoE.forward

        def limited(network: DSMoE, images: Any, *rest: Any) -> Any:
            self.batch_sizes.append(len(images))
            output = forward(network, images, *rest)
            if len(images) > self.capacity:
                raise error
            return output

        monkeypatch.setattr(DSMoE, "forward", limited)


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_a_batch_that_does_not_fit_is_processed_in_halves(
    error: RuntimeError,
    tmp_path: Path,
    images: list[LabelledImage],
    vocabulary: Vocabulary,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The weights are bit-identical to those of a run with this micro-batch, so the failure has no effect."""
    memory = LimitedMemory(monkeypatch, error)
    configured = FOUR.model_copy(update={"micro_batch": 2})
    train(tmp_path / "configured", images, vocabulary, training=configured)
    assert set(memory.batch_sizes) == {2}
    memory.capacity, memory.batch_sizes = 2, []
    summary = train(tmp_path / "failed", images, vocabulary, training=FOUR)
    assert summary.steps == 3
    assert memory.batch_sizes == [4] + [2] * 4 * 3
    (warning,) = [r for r in caplog.records if r.name == "dsmoe_core.training.microbatch"]
    assert warning.args is not None
    assert warning.args[:2] == (4, 2)
    first, second = (read_tensors(tmp_path / name / WEIGHTS)[0] for name in ("configured", "failed"))
    assert [name for name, tensor in first.items() if not torch.equal(tensor, second[name])] == []


def test_a_resumed_run_keeps_the_reduced_micro_batch(
    tmp_path: Path,
    images: list[LabelledImage],
    vocabulary: Vocabulary,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = LimitedMemory(monkeypatch, ERRORS["gpu"], capacity=2)
    with pytest.raises(Killed):
        train(tmp_path, images, vocabulary, training=FOUR, kill_at=2)
    memory.batch_sizes = []
    train(tmp_path, images, vocabulary, training=FOUR)
    assert set(memory.batch_sizes) == {2}


def test_changing_the_micro_batch_does_not_restart_the_run(
    tmp_path: Path,
    images: list[LabelledImage],
    vocabulary: Vocabulary,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = LimitedMemory(monkeypatch, ERRORS["gpu"])
    with pytest.raises(Killed):
        train(tmp_path, images, vocabulary, training=FOUR, kill_at=2)
    memory.batch_sizes = []
    changed = FOUR.model_copy(update={"micro_batch": 2, "checkpoint_every_s": 1e6})
    assert train(tmp_path, images, vocabulary, training=changed).steps == 3
    assert memory.batch_sizes == [2] * 4 * 2, "two steps left, two micro-batches each, processed twice"


def test_a_single_image_that_does_not_fit_is_refused_with_a_remedy(
    tmp_path: Path,
    images: list[LabelledImage],
    vocabulary: Vocabulary,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = LimitedMemory(monkeypatch, ERRORS["cpu"], capacity=0)
    with pytest.raises(PrerequisiteError) as raised:
        train(tmp_path, images, vocabulary, training=FOUR)
    assert memory.batch_sizes == [4, 2, 1]
    assert "image_px" in raised.value.remedy


def test_other_errors_are_raised_unchanged(
    tmp_path: Path,
    images: list[LabelledImage],
    vocabulary: Vocabulary,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    LimitedMemory(monkeypatch, RuntimeError("mat1 and mat2 shapes cannot be multiplied"), capacity=0)
    with pytest.raises(RuntimeError, match="mat1"):
        train(tmp_path, images, vocabulary, training=FOUR)


def test_one_of_several_processes_does_not_halve_alone() -> None:
    def fail(micro_batch: int) -> None:
        raise ERRORS["gpu"]

    finder = MicroBatchFinder(torch.nn.Linear(1, 1), 8, ProcessGroup(rank=1, count=2))
    with pytest.raises(PrerequisiteError, match=r"\b8\b.*process 1") as raised:
        finder.run(fail)
    assert "detector.training.micro_batch to 4" in raised.value.remedy


def test_an_error_of_the_cpu_allocator_is_recognised() -> None:
    def allocate_too_much(micro_batch: int) -> None:
        torch.empty(10**15)

    with pytest.raises(PrerequisiteError, match="DefaultCPUAllocator"):
        MicroBatchFinder(torch.nn.Linear(1, 1), 1, ProcessGroup()).run(allocate_too_much)
