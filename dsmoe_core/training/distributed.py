"""Training in several processes that torchrun starts: each learns its share of every batch.

The batch of the settings is the whole one, whoever learns it. Every process draws it whole, because a
image's random numbers follow those before it, and takes its share. What the losses are divided by is
counted over all (``losses.Whole``), batch normalisation is over all (``synchronised.py``), and gradients are
added up: the result is that of one process with the whole batch, but for the order of the additions. Not
DistributedDataParallel, which averages means, and waits for experts that no image of a process chose.
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


@contextmanager
def process_group() -> Iterator[ProcessGroup]:
    """Those that torchrun started together; elsewhere, this one alone.

    Raises:
        PrerequisiteError: a process has no GPU of its own, where there are any.
    """
    if not dist.is_torchelastic_launched():
        yield ProcessGroup()
        return
    cuda = torch.cuda.is_available()
    device = dist.get_node_local_rank(0)
    if cuda and device >= torch.cuda.device_count():
        raise PrerequisiteError(
            f"process {device} of this machine has no GPU; there are {torch.cuda.device_count()}",
            "Start at most one process a GPU.",
        )
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield ProcessGroup.present()
    finally:
        dist.destroy_process_group()


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """Those that train together.

    Attributes:
        rank: of this one, from 0.
        count: of all.
        device: index of this one's accelerator on its machine.
    """

    rank: int = 0
    count: int = 1
    device: int = 0

    @classmethod
    def present(cls) -> ProcessGroup:
        """Those that this one has joined."""
        if not dist.is_available() or not dist.is_initialized():
            return cls()
        return cls(dist.get_rank(), dist.get_world_size(), dist.get_node_local_rank(0))

    @property
    def devices(self) -> list[int] | int:
        """Which accelerator of this machine is this one's, or how many places on the processor."""
        return [self.device] if torch.cuda.is_available() else 1

    @property
    def first(self) -> bool:
        """Whether this one writes."""
        return self.rank == 0

    def micro_batch(self, training: TrainingConfig) -> int:
        """Images that each of them sends through the network at once, to begin with."""
        own = max(1, training.batch // self.count)
        return min(training.micro_batch or own, own)

    def share(self, batch: Batch) -> Batch:
        """What this process learns of a batch.

        Raises:
            SettingsError: the images cannot be dealt out evenly.
        """
        images = len(batch.boxes)
        if images % self.count:
            raise SettingsError(
                f"the batch is {images}; expected a multiple of the {self.count} processes",
                "Change detector.training.batch or the number of processes.",
            )
        each = images // self.count
        return batch.slice(self.rank * each, (self.rank + 1) * each)

    def add_up(self, value: Tensor) -> Tensor:
        """The sum over all processes; no gradient flows."""
        if self.count == 1:
            return value
        cuda = torch.cuda.is_available()  # where there are GPUs, NCCL adds up, which knows nothing else
        summed = value.detach().to("cuda" if cuda else "cpu", copy=True)
        dist.all_reduce(summed)
        return summed.to(value.device)

    def add_up_gradients(self, network: nn.Module) -> None:
        """Give every process the sum of all gradients; a weight that none of them used keeps none."""
        if self.count == 1:
            return
        weights = [p for p in network.parameters() if p.requires_grad]
        used = self.add_up(torch.tensor([float(p.grad is not None) for p in weights]))
        weights = [p for p, by in zip(weights, used.tolist(), strict=True) if by]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in weights]
        flat = self.add_up(torch.cat([g.flatten() for g in gradients]))
        at = 0
        for p, gradient in zip(weights, gradients, strict=True):
            p.grad = gradient.copy_(flat[at : at + p.numel()].view(p.shape))
            at += p.numel()

    @torch.no_grad()
    def agree_on_statistics(self, network: nn.Module) -> None:
        """Give every process the mean of all processes' statistics, such as the router's handicap."""
        if self.count > 1:
            for buffer in network.buffers():
                if buffer.dtype.is_floating_point:
                    buffer.copy_(self.add_up(buffer) / self.count)

    def need_the_same(self, step: int) -> None:
        """All begin at the same step, so all have read the same checkpoint.

        Raises:
            PrerequisiteError: they do not.
        """
        steps = self.add_up(torch.nn.functional.one_hot(torch.tensor(self.rank), self.count) * step)
        if len(set(steps.tolist())) > 1:
            raise PrerequisiteError(
                f"the processes would go on from the steps {steps.tolist()}; expected one",
                "Let all of them see the same output folder.",
            )

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            dist.barrier()
