"""Losses and gradients of a batch, processed whole or in micro-batches, in one process or several.

With micro-batches the gradients equal those of the whole batch, except that batch normalisation and the
router's running mean see one micro-batch at a time, and that the specialisation and the conflicting
gradients are estimated from each. The update of the router's load bias is scaled by the micro-batch's share
of the batch.

The denominators of the losses are known only after every image has been through the network. So a batch in
micro-batches is processed twice: first without gradients, to assign the targets and count
(``losses.BatchCounts``), then for the gradients. This costs a third more. If each micro-batch were divided by
its own counts, one with a single defect would weigh as much as one with twenty.
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
from dsmoe_core.gradient_conflict import gradient_conflict_loss, recorded_mixture
from dsmoe_core.long_tailed_routing import text_balance_loss
from dsmoe_core.losses import (
    BatchCounts,
    GroundTruth,
    Taxonomy,
    assign_targets,
    detection_losses,
)
from dsmoe_core.network import ClassEncoding, NetworkOutput
from dsmoe_core.runtimes.protocol import to_network_input
from dsmoe_core.stage_losses import auxiliary_losses
from dsmoe_core.stages.aggregation import Aggregation
from dsmoe_core.stages.gating import AttentionGating
from dsmoe_core.training.distributed import ProcessGroup
from dsmoe_core.training.frozen_encoder import FrozenEncoder
from dsmoe_core.training.microbatch import preserved_buffers
from dsmoe_core.training.step_sampler import TrainingStep
from dsmoe_core.training.teacher import Teacher


@dataclass(frozen=True, slots=True)
class Objective:
    """Computes losses and gradients of training steps.

    Attributes:
        fabric: gives device and backward pass.
        network: the network, wrapped by Fabric.
        weights: weights of the losses.
        bce_iou: use the losses of rows A to E of the ablation, cross-entropy and 1 - IoU.
        processes: the processes that train together.
        encoder: the frozen image encoder; None if the encoder is trained.
        teacher: the network that this one learns from as well; None: it learns from the labels only.
    """

    fabric: Fabric
    network: Any
    weights: LossWeights
    bce_iou: bool
    processes: ProcessGroup
    encoder: FrozenEncoder | None
    teacher: Teacher | None = None

    def accumulate_gradients(self, step: TrainingStep, micro_batch: int) -> dict[str, Tensor]:
        """Add the gradients of a step's losses to the network's gradients.

        Args:
            step: data of the step.
            micro_batch: images per forward pass, in each process.

        Returns:
            The weighted losses of the whole batch by name.

        Raises:
            torch.OutOfMemoryError: the micro-batch does not fit. Gradients and buffers are then undefined.
        """
        batch, device = self.processes.shard(step.batch), self.fabric.device
        full_encoding = self.network.encode_classes(step.classes.to(device), step.inner.to(device))
        encoding = full_encoding.select(step.active.to(device))
        taxonomy = Taxonomy(*(rows.to(device) for rows in step.taxonomy))
        detached = _detach(encoding)  # collects the gradients of the texts, for one backward pass at the end
        images = len(batch.boxes)
        parts = [batch.slice(i, min(i + micro_batch, images)) for i in range(0, images, micro_batch)]
        precomputed = self._precompute_targets(detached, parts) if len(parts) > 1 else None
        losses: dict[str, Tensor] = {}
        for i, part in enumerate(parts):
            truth = self._ground_truth(part)
            with recorded_mixture(self.network) as mixture:
                output = self._forward(detached, part, len(part.boxes) / images)
            if precomputed is None:
                targets = self._assign(output, truth)
                counts = self._reduce(BatchCounts.from_targets(targets, truth))
            else:
                targets, counts = precomputed[0][i], precomputed[1]
            distilled = self._distillation_losses(output, part, step, counts)
            part_losses = self._backward(
                detached, taxonomy, output, mixture, truth, targets, counts, distilled
            )
            for name, loss in part_losses.items():
                losses[name] = losses.get(name, 0.0) + loss
        _backward_through(encoding, detached)
        self.processes.reduce_gradients(self.network)
        self.processes.average_buffers(self.network)
        totals = self.processes.all_reduce(torch.stack(list(losses.values())))
        return dict(zip(losses, totals, strict=True))

    def _backward(
        self,
        encoding: ClassEncoding,
        taxonomy: Taxonomy,
        output: NetworkOutput,
        mixture: list[Tensor],
        truth: list[GroundTruth],
        targets: Sequence[Targets],
        counts: BatchCounts,
        distilled: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        """Compute the losses of one micro-batch and run the backward pass.

        Args:
            mixture: F_MoE; empty in a network without stage 8.
            distilled: its losses towards the teacher.
        """
        inner = self.network.alignment.anchors(encoding.inner) if output.aligned is not None else None
        total = self.processes.all_reduce_with_gradients
        detection = detection_losses(output, targets, counts, self.weights, bce_iou=self.bce_iou)
        share = len(truth) / counts.images
        conflict = self._backward_conflict(detection, output, mixture, share)
        losses = {
            **detection,
            **auxiliary_losses(output, encoding, inner, taxonomy, truth, counts, self.weights, total),
            **self._text_balance(encoding, output, share),
            **distilled,
        }
        self.fabric.backward(torch.stack(list(losses.values())).sum())
        return {name: loss.detach() for name, loss in {**losses, **conflict}.items()}

    def _text_balance(
        self, encoding: ClassEncoding, output: NetworkOutput, share: Tensor
    ) -> dict[str, Tensor]:
        """Compute the balance loss of the class texts, if it is on.

        Args:
            share: of the batch that this process has in this micro-batch.
        """
        if not self.weights.text_balance or output.gated is None:
            return {}
        gating = self.network.gating
        loss = text_balance_loss(gating.route_texts(encoding.conditioning), gating.top_k)
        return {"text_balance": share * self.weights.text_balance * loss}

    def _backward_conflict(
        self, detection: dict[str, Tensor], output: NetworkOutput, mixture: list[Tensor], share: Tensor
    ) -> dict[str, Tensor]:
        """Add the gradients of the loss on conflicting gradients to the router's weights, if it is on.

        Args:
            detection: losses whose gradients are compared.
            mixture: F_MoE.
            share: of the batch that this process has in this micro-batch.
        """
        if not self.weights.gradient_conflict or output.gated is None:
            return {}
        (f_moe,) = mixture
        # Fabric refuses torch.autograd.grad in mixed precision.
        self.fabric.backward(torch.stack(list(detection.values())).sum(), inputs=[f_moe], retain_graph=True)
        gradient, f_moe.grad = f_moe.grad, None
        assert gradient is not None  # noqa: S101 - F_out is computed from F_MoE
        total = self.processes.all_reduce
        loss = gradient_conflict_loss(
            output.gated, gradient, threshold=self.weights.conflict_threshold, total=total
        )
        loss = total(share) * self.weights.gradient_conflict * loss
        router = [weight for weight in self.network.gating.parameters() if weight.requires_grad]
        self.fabric.backward(loss, inputs=router, retain_graph=True)
        return {"gradient_conflict": loss}

    def _distillation_losses(
        self, output: NetworkOutput, batch: Batch, step: TrainingStep, counts: BatchCounts
    ) -> dict[str, Tensor]:
        if self.teacher is None:
            return {}
        pixels = torch.from_numpy(batch.pixels)
        return self.teacher.losses(output, pixels, step.set_index, step.active, counts, self.weights)

    def _precompute_targets(
        self, encoding: ClassEncoding, parts: Sequence[Batch]
    ) -> tuple[list[list[Targets]], BatchCounts]:
        """Assign the targets of every micro-batch, and count over the whole batch."""
        targets, counts = [], []
        images = sum(len(part.boxes) for part in parts)
        with torch.no_grad(), preserved_buffers(self.network):
            for part in parts:
                truth = self._ground_truth(part)
                output = self._forward(encoding, part, len(part.boxes) / images)
                targets.append(self._assign(output, truth))
                counts.append(BatchCounts.from_targets(targets[-1], truth))
        return targets, self._reduce(BatchCounts.add(counts))

    def _assign(self, output: NetworkOutput, truth: list[GroundTruth]) -> list[Targets]:
        return assign_targets(
            output,
            truth,
            label_floor=self.weights.label_floor,
            equal_boxes=self.weights.box_weighting == "equal",
            bce_iou=self.bce_iou,
        )

    def _reduce(self, counts: BatchCounts) -> BatchCounts:
        return BatchCounts(*(self.processes.all_reduce(count) for count in counts))

    def _forward(self, encoding: ClassEncoding, batch: Batch, batch_fraction: float) -> NetworkOutput:
        for module in self.network.modules():
            if isinstance(module, AttentionGating | Aggregation):
                module.batch_fraction = batch_fraction
        images = to_network_input(torch.from_numpy(batch.pixels).to(self.fabric.device))
        images = images.contiguous(memory_format=torch.channels_last)
        maps = None if self.encoder is None else self.encoder.maps(batch.pixels)
        output: NetworkOutput = self.network(images, encoding.conditioning, encoding.classes, maps)
        return output

    def _ground_truth(self, batch: Batch) -> list[GroundTruth]:
        device = self.fabric.device
        return [
            GroundTruth(torch.from_numpy(boxes).to(device), torch.from_numpy(labels).to(device))
            for boxes, labels in zip(batch.boxes, batch.labels, strict=True)
        ]


def _detach(encoding: ClassEncoding) -> ClassEncoding:
    return ClassEncoding(*(t.detach().requires_grad_(t.requires_grad) for t in encoding))


def _backward_through(encoding: ClassEncoding, detached: ClassEncoding) -> None:
    """Propagate the gradients collected in the detached encoding back to stages 1 and 2."""
    pairs = [(t, d.grad) for t, d in zip(encoding, detached, strict=True) if d.grad is not None]
    if pairs:
        torch.autograd.backward([t for t, _ in pairs], [g for _, g in pairs])
