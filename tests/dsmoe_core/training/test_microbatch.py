"""Memory runs out: fewer images at once, the same step, the same batch."""

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


class Limited:
    """A network that has room for so many images; the error comes after it has begun to work."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: RuntimeError, room: int = 10**9) -> None:
        self.room, self.seen = room, []
        forward = DSMoE.forward

        def limited(network: DSMoE, images: Any, *rest: Any) -> Any:
            self.seen.append(len(images))
            output = forward(network, images, *rest)
            if len(images) > self.room:
                raise error
            return output

        monkeypatch.setattr(DSMoE, "forward", limited)


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_a_batch_that_does_not_fit_is_learned_in_halves_from_the_same_step(
    error: RuntimeError,
    tmp_path: Path,
    images: list[LabelledImage],
    vocabulary: Vocabulary,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Bit for bit what comes out where halves were asked for: a failed try leaves nothing behind."""
    network = Limited(monkeypatch, error)
    asked = FOUR.model_copy(update={"micro_batch": 2})
    train(tmp_path / "asked", images, vocabulary, training=asked)
    assert set(network.seen) == {2}
    network.room, network.seen = 2, []
    summary = train(tmp_path / "failed", images, vocabulary, training=FOUR)
    assert summary.steps == 3
    assert network.seen == [4] + [2] * 4 * 3
    said = [r.getMessage() for r in caplog.records if "do not fit" in r.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("4 images at once do not fit into memory: going on with 2 at a time")
    one, other = (read_tensors(tmp_path / name / WEIGHTS)[0] for name in ("asked", "failed"))
    assert [name for name, tensor in one.items() if not torch.equal(tensor, other[name])] == []


def test_a_resumed_run_knows_what_fits(
    tmp_path: Path,
    images: list[LabelledImage],
    vocabulary: Vocabulary,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = Limited(monkeypatch, ERRORS["gpu"], room=2)
    with pytest.raises(Killed):
        train(tmp_path, images, vocabulary, training=FOUR, kill_at=2)
    network.seen = []
    train(tmp_path, images, vocabulary, training=FOUR)
    assert set(network.seen) == {2}


def test_what_is_changed_because_memory_ran_out_does_not_begin_the_run_anew(
    tmp_path: Path,
    images: list[LabelledImage],
    vocabulary: Vocabulary,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = Limited(monkeypatch, ERRORS["gpu"])
    with pytest.raises(Killed):
        train(tmp_path, images, vocabulary, training=FOUR, kill_at=2)
    network.seen = []
    other = FOUR.model_copy(update={"micro_batch": 2, "checkpoint_every_s": 1e6})
    assert train(tmp_path, images, vocabulary, training=other).steps == 3
    assert network.seen == [2] * 4 * 2, "each of the two steps that were left counts, then learns"


def test_one_image_that_does_not_fit_is_an_error_with_a_remedy(
    tmp_path: Path,
    images: list[LabelledImage],
    vocabulary: Vocabulary,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = Limited(monkeypatch, ERRORS["cpu"], room=0)
    with pytest.raises(PrerequisiteError, match="one image at a time does not fit") as raised:
        train(tmp_path, images, vocabulary, training=FOUR)
    assert network.seen == [4, 2, 1]
    assert "image_px" in raised.value.remedy


def test_other_errors_are_not_taken_for_it(
    tmp_path: Path,
    images: list[LabelledImage],
    vocabulary: Vocabulary,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Limited(monkeypatch, RuntimeError("mat1 and mat2 shapes cannot be multiplied"), room=0)
    with pytest.raises(RuntimeError, match="mat1"):
        train(tmp_path, images, vocabulary, training=FOUR)


def test_one_of_several_processes_cannot_halve_alone() -> None:
    def fail(micro_batch: int) -> None:
        raise ERRORS["gpu"]

    memory = MicroBatchFinder(torch.nn.Linear(1, 1), 8, ProcessGroup(rank=1, count=2))
    with pytest.raises(PrerequisiteError, match=r"8 images at once.*process 1") as raised:
        memory.run(fail)
    assert "micro_batch to 4 or less" in raised.value.remedy


def test_the_allocator_of_the_processor_says_what_we_listen_for() -> None:
    def ask_too_much(micro_batch: int) -> None:
        torch.empty(10**15)

    with pytest.raises(PrerequisiteError, match=r"does not fit into memory .*DefaultCPUAllocator"):
        MicroBatchFinder(torch.nn.Linear(1, 1), 1, ProcessGroup()).run(ask_too_much)
