"""The losses of a batch and their gradients: whole or in parts, in one process or several.

In parts, the gradients are those of the whole batch, but that batch normalisation and the router's centre see
a part at a time. Each part moves the router's handicap by its share of the batch. What the losses are divided
by is known only when every image has been through the network, so a batch in parts goes through twice:
first without gradients, to assign the targets and count (``losses.Whole``), then to learn. A third more work;
divided by its own count instead, a part with one defect would weigh as much as one with twenty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from dsmoe_core.assign import Targets
from dsmoe_core.config import LossWeights
from dsmoe_core.data.batches import Batch
from dsmoe_core.losses import (
    BatchCounts,
    GroundTruth,
    Taxonomy,
    assign_targets,
    auxiliary_losses,
    detection_losses,
)
from dsmoe_core.network import ClassEncoding, NetworkOutput
from dsmoe_core.runtimes.protocol import to_network_input
from dsmoe_core.stages.gating import AttentionGating
from dsmoe_core.training.distributed import ProcessGroup
from dsmoe_core.training.frozen_encoder import FrozenEncoder
from dsmoe_core.training.statistics import preserved_buffers
from dsmoe_core.training.step_sampler import TrainingStep


@dataclass(frozen=True, slots=True)
class Objective:
    """What a network is trained for.

    Attributes:
        network: as Fabric has wrapped it.
        plain: losses of rows A to E of the ablation.
        encoder: where the image encoder does not learn.
    """

    fabric: Fabric
    network: Any
    weights: LossWeights
    plain: bool
    processes: ProcessGroup
    encoder: FrozenEncoder | None

    def gradients(self, question: TrainingStep, micro_batch: int) -> dict[str, Tensor]:
        """Add the gradients of this step's losses to the network's.

        Args:
            micro_batch: images that go through the network at once, in each process.

        Returns:
            The losses of the whole batch by name, weighted.

        Raises:
            torch.OutOfMemoryError: they do not fit; some gradients and statistics are left behind.
        """
        own, device = self.processes.share(question.batch), self.fabric.device
        whole_book = self.network.encode_classes(question.classes.to(device), question.inner.to(device))
        read = whole_book.about(question.asked.to(device))
        taxonomy = Taxonomy(*(rows.to(device) for rows in question.taxonomy))
        held = _held(read)  # so that the words' gradients are gathered, and go back once
        images = len(own.boxes)
        parts = [own.slice(i, min(i + micro_batch, images)) for i in range(0, images, micro_batch)]
        known = self._count(held, parts) if len(parts) > 1 else None
        total: dict[str, Tensor] = {}
        for i, part in enumerate(parts):
            truth = self._truth(part)
            output = self._output(held, part, len(part.boxes) / images)
            targets, whole = (known[0][i], known[1]) if known else self._counted(output, truth)
            for name, loss in self._learn(held, taxonomy, output, truth, targets, whole).items():
                total[name] = total.get(name, 0.0) + loss
        _go_back(read, held)
        self.processes.add_up_gradients(self.network)
        self.processes.agree_on_statistics(self.network)
        summed = self.processes.add_up(torch.stack(list(total.values())))
        return dict(zip(total, summed, strict=True))

    def _learn(
        self,
        read: ClassEncoding,
        taxonomy: Taxonomy,
        output: NetworkOutput,
        truth: list[GroundTruth],
        targets: Sequence[Targets],
        whole: BatchCounts,
    ) -> dict[str, Tensor]:
        inner = self.network.alignment.anchors(read.inner) if output.aligned is not None else None
        losses = {
            **detection_losses(output, targets, whole, self.weights, plain=self.plain),
            **auxiliary_losses(output, read, inner, taxonomy, truth, whole, self.weights),
        }
        self.fabric.backward(torch.stack(list(losses.values())).sum())
        return {name: loss.detach() for name, loss in losses.items()}

    def _count(self, read: ClassEncoding, parts: Sequence[Batch]) -> tuple[list[list[Targets]], BatchCounts]:
        """The targets of every part, and the counts of the whole batch."""
        assigned, counts = [], []
        images = sum(len(part.boxes) for part in parts)
        with torch.no_grad(), preserved_buffers(self.network):
            for part in parts:
                truth = self._truth(part)
                output = self._output(read, part, len(part.boxes) / images)
                assigned.append(self._targets(output, truth))
                counts.append(BatchCounts.of(assigned[-1], truth))
        return assigned, self._of_all(BatchCounts.together(counts))

    def _counted(self, output: NetworkOutput, truth: list[GroundTruth]) -> tuple[list[Targets], BatchCounts]:
        targets = self._targets(output, truth)
        return targets, self._of_all(BatchCounts.of(targets, truth))

    def _targets(self, output: NetworkOutput, truth: list[GroundTruth]) -> list[Targets]:
        return assign_targets(output, truth, label_floor=self.weights.label_floor, plain=self.plain)

    def _of_all(self, counts: BatchCounts) -> BatchCounts:
        return BatchCounts(*(self.processes.add_up(count) for count in counts))

    def _output(self, read: ClassEncoding, batch: Batch, share: float) -> NetworkOutput:
        for module in self.network.modules():
            if isinstance(module, AttentionGating):
                module.batch_fraction = share
        images = to_network_input(torch.from_numpy(batch.pixels).to(self.fabric.device))
        images = images.contiguous(memory_format=torch.channels_last)
        maps = None if self.encoder is None else self.encoder.maps(batch.pixels)
        output: NetworkOutput = self.network(images, read.conditioning, read.classes, maps)
        return output

    def _truth(self, batch: Batch) -> list[GroundTruth]:
        device = self.fabric.device
        return [
            GroundTruth(torch.from_numpy(b).to(device), torch.from_numpy(c).to(device))
            for b, c in zip(batch.boxes, batch.labels, strict=True)
        ]


def _held(read: ClassEncoding) -> ClassEncoding:
    return ClassEncoding(*(t.detach().requires_grad_(t.requires_grad) for t in read))


def _go_back(read: ClassEncoding, held: ClassEncoding) -> None:
    """Hand the gradients that were gathered on to what the words were read by."""
    pairs = [(t, h.grad) for t, h in zip(read, held, strict=True) if h.grad is not None]
    if pairs:
        torch.autograd.backward([t for t, _ in pairs], [g for _, g in pairs])
