"""When memory runs out: fewer images at once, the same batch."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from dsmoe_core.errors import PrerequisiteError
from dsmoe_core.training.distributed import ProcessGroup
from dsmoe_core.training.statistics import BufferSnapshot

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class MicroBatchFinder:
    """Finds out how many images fit at once.

    Attributes:
        micro_batch: so many are tried next.
    """

    def __init__(self, network: nn.Module, micro_batch: int, processes: ProcessGroup) -> None:
        self.micro_batch = micro_batch
        self._network = network
        self._processes = processes

    def run(self, work: Callable[[int], _T]) -> _T:
        """Do a step's forward and backward work with as many images at once as fit.

        A try that failed leaves nothing behind: gradients are dropped, statistics are put back.

        Raises:
            PrerequisiteError: one image is too many; or memory runs out in one of several processes,
                where the others wait for its share.
        """
        before = BufferSnapshot(self._network)
        while True:
            try:
                return work(self.micro_batch)
            except RuntimeError as error:
                if not _says_out_of_memory(error):
                    raise
                reason = str(error).splitlines()[0]
            # Not within the handler: there the traceback still holds the tensors of the try.
            self._shrink(reason)
            self._network.zero_grad(set_to_none=True)
            before.restore()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _shrink(self, reason: str) -> None:
        if self.micro_batch == 1:
            raise PrerequisiteError(
                f"one image at a time does not fit into memory ({reason})",
                "Lower detector.model.image_px, take the size nano, or a machine with more memory.",
            )
        fewer = self.micro_batch // 2
        if self._processes.count > 1:
            raise PrerequisiteError(
                f"{self.micro_batch} images at once do not fit into the memory of process "
                f"{self._processes.rank} ({reason})",
                f"Set detector.training.micro_batch to {fewer} or less.",
            )
        _log.warning(
            "%d images at once do not fit into memory: going on with %d at a time, the batch stays (%s)",
            self.micro_batch,
            fewer,
            reason,
        )
        self.micro_batch = fewer


def _says_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate" in str(error)
