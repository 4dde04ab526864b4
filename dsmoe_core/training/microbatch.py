"""Reduces the micro-batch when memory runs out, and saves and restores a network's buffers around passes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

from dsmoe_core.errors import PrerequisiteError
from dsmoe_core.training.distributed import ProcessGroup

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class BufferSnapshot:
    """Copy of all buffers of a network, such as running means."""

    def __init__(self, network: nn.Module) -> None:
        self._copies = [(buffer, buffer.clone()) for buffer in network.buffers()]

    @torch.no_grad()
    def restore(self) -> None:
        """Set the buffers to the copied values."""
        for buffer, copy in self._copies:
            buffer.copy_(copy)


@contextmanager
def preserved_buffers(network: nn.Module) -> Iterator[None]:
    """Restore the network's buffers at the end of the block."""
    snapshot = BufferSnapshot(network)
    try:
        yield
    finally:
        snapshot.restore()


class MicroBatchFinder:
    """Halves the micro-batch until it fits into memory.

    Args:
        network: its gradients and buffers are reset after a failed attempt.
        micro_batch: images per forward pass to try first.
        processes: the processes that train together.

    Attributes:
        micro_batch: images per forward pass to try next.
    """

    def __init__(self, network: nn.Module, micro_batch: int, processes: ProcessGroup) -> None:
        self.micro_batch = micro_batch
        self._network = network
        self._processes = processes

    def run(self, work: Callable[[int], _T]) -> _T:
        """Call ``work(micro_batch)``, with smaller micro-batches until it fits into memory.

        A failed attempt has no effect: gradients are dropped and buffers restored.

        Raises:
            PrerequisiteError: a single image does not fit, or memory runs out in one of several processes, of
                which the others wait for its result.
        """
        snapshot = BufferSnapshot(self._network)
        while True:
            try:
                return work(self.micro_batch)
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
                reason = str(error).splitlines()[0]
            # Outside the handler: inside it, the traceback still references the tensors of the attempt.
            self._halve(reason)
            self._network.zero_grad(set_to_none=True)
            snapshot.restore()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _halve(self, reason: str) -> None:
        if self.micro_batch == 1:
            raise PrerequisiteError(
                f"a single image does not fit into memory ({reason})",
                "Lower detector.model.image_px, use the size nano, or use a machine with more memory.",
            )
        smaller = self.micro_batch // 2
        if self._processes.count > 1:
            raise PrerequisiteError(
                f"a micro-batch of {self.micro_batch} images does not fit into the memory of process "
                f"{self._processes.rank} ({reason})",
                f"Set detector.training.micro_batch to {smaller} or less.",
            )
        _log.warning(
            "a micro-batch of %d images does not fit into memory; continuing with %d, same batch size (%s)",
            self.micro_batch,
            smaller,
            reason,
        )
        self.micro_batch = smaller


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate" in str(error)
