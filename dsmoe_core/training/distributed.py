"""Data-parallel training in several processes started by torchrun.

The configured batch is the batch over all processes. Every process loads the whole batch, because the random
numbers of an image depend on the images before it, and trains on its share. The denominators of the losses
are counted over all processes (``losses.BatchCounts``), batch normalisation is synchronised
(synchronised.py), and gradients are summed. So the result equals that of one process with the whole batch,
except for the order of additions. DistributedDataParallel is not used: it averages means, and it waits for
experts that no image of a process selected.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dsmoe_core.config import TrainingConfig
from dsmoe_core.data.batches import Batch
from dsmoe_core.errors import PrerequisiteError, SettingsError
from dsmoe_core.training.synchronised import all_reduce_sum


@contextmanager
def process_group() -> Iterator[ProcessGroup]:
    """Join the processes started by torchrun; without torchrun, yield a group of this process alone.

    Raises:
        PrerequisiteError: the machine has GPUs, but fewer than processes.
    """
    if not dist.is_torchelastic_launched():
        yield ProcessGroup()
        return
    cuda = torch.cuda.is_available()
    device = dist.get_node_local_rank(0)
    if cuda and device >= torch.cuda.device_count():
        raise PrerequisiteError(
            f"process {device} of this machine has no GPU; there are {torch.cuda.device_count()}",
            "Start at most one process per GPU.",
        )
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield ProcessGroup.current()
    finally:
        dist.destroy_process_group()


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """Processes that train one model together.

    Attributes:
        rank: number of this process, from 0.
        count: number of processes.
        device: index of this process's accelerator on its machine.
    """

    rank: int = 0
    count: int = 1
    device: int = 0

    @classmethod
    def current(cls) -> ProcessGroup:
        """Return the group that this process has joined."""
        if not dist.is_available() or not dist.is_initialized():
            return cls()
        return cls(dist.get_rank(), dist.get_world_size(), dist.get_node_local_rank(0))

    @property
    def devices(self) -> list[int] | int:
        """Fabric's ``devices``: the index of this process's GPU, or the number of CPU devices."""
        return [self.device] if torch.cuda.is_available() else 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and reports progress."""
        return self.rank == 0

    def micro_batch(self, training: TrainingConfig) -> int:
        """Return the initial number of images per forward pass in each process."""
        share = max(1, training.batch // self.count)
        return min(training.micro_batch or share, share)

    def shard(self, batch: Batch) -> Batch:
        """Return this process's share of a batch.

        Raises:
            SettingsError: the batch cannot be divided evenly.
        """
        images = len(batch.boxes)
        if images % self.count:
            raise SettingsError(
                f"the batch is {images}; expected a multiple of the {self.count} processes",
                "Change detector.training.batch or the number of processes.",
            )
        share = images // self.count
        return batch.slice(self.rank * share, (self.rank + 1) * share)

    def all_reduce(self, value: Tensor) -> Tensor:
        """Return the sum over all processes; gradients do not flow through it."""
        if self.count == 1:
            return value
        cuda = torch.cuda.is_available()  # the NCCL backend reduces GPU tensors only
        total = value.detach().to("cuda" if cuda else "cpu", copy=True)
        dist.all_reduce(total)
        return total.to(value.device)

    def all_reduce_with_gradients(self, value: Tensor) -> Tensor:
        """Return the sum over all processes; a value's gradient is the sum of all processes' gradients."""
        return value if self.count == 1 else all_reduce_sum(value)

    def reduce_gradients(self, network: nn.Module) -> None:
        """Sum the gradients over all processes; a weight without a gradient in all of them keeps none."""
        if self.count == 1:
            return
        weights = [p for p in network.parameters() if p.requires_grad]
        users = self.all_reduce(torch.tensor([float(p.grad is not None) for p in weights]))
        weights = [p for p, used in zip(weights, users.tolist(), strict=True) if used]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in weights]
        flat = self.all_reduce(torch.cat([g.flatten() for g in gradients]))
        offset = 0
        for p, gradient in zip(weights, gradients, strict=True):
            p.grad = gradient.copy_(flat[offset : offset + p.numel()].view(p.shape))
            offset += p.numel()

    @torch.no_grad()
    def average_buffers(self, network: nn.Module) -> None:
        """Set every floating-point buffer, such as the router's load bias, to its mean over all processes."""
        if self.count > 1:
            for buffer in network.buffers():
                if buffer.dtype.is_floating_point:
                    buffer.copy_(self.all_reduce(buffer) / self.count)

    def require_same_step(self, step: int) -> None:
        """Check that all processes resume at the same step, hence from the same checkpoint.

        Raises:
            PrerequisiteError: they do not.
        """
        steps = self.all_reduce(torch.nn.functional.one_hot(torch.tensor(self.rank), self.count) * step)
        if len(set(steps.tolist())) > 1:
            raise PrerequisiteError(
                f"the processes would resume at different steps, {steps.tolist()}; expected one step for all",
                "Give all of them access to the same output folder.",
            )

    def barrier(self) -> None:
        """Wait until all processes have reached this call."""
        if self.count > 1:
            dist.barrier()
