"""A small network with its training objective."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch
from lightning.fabric import Fabric
from tiny import SMALL, HashEncoder
from torch import Tensor, nn

from dsmoe_core.build import build
from dsmoe_core.config import LossWeights, ModelConfig, TrainingConfig
from dsmoe_core.data.batches import Batch, TrainingSet
from dsmoe_core.data.letterbox import LetterboxReader
from dsmoe_core.schema import LabelledImage, Vocabulary
from dsmoe_core.stages.aggregation import Aggregation
from dsmoe_core.stages.gating import AttentionGating
from dsmoe_core.text_embeddings import TextEmbeddings, embed_vocabulary
from dsmoe_core.training.distributed import ProcessGroup
from dsmoe_core.training.objective import Objective
from dsmoe_core.training.step_sampler import TrainingStep


class Learner(NamedTuple):
    """A network in training mode with its objective, a batch, and the embeddings of its vocabulary."""

    network: Any
    objective: Objective
    texts: TextEmbeddings
    batch: Batch

    def gradients(
        self, micro_batch: int, batch: Batch | None = None
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Compute losses and gradients by name, on all classes."""
        self.network.zero_grad(set_to_none=True)
        classes = self.texts.classes
        step = TrainingStep.with_classes(torch.arange(len(classes)), batch or self.batch, classes, self.texts)
        losses = self.objective.accumulate_gradients(step, micro_batch)
        gradients = {n: p.grad.clone() for n, p in self.network.named_parameters() if p.grad is not None}
        return {name: float(loss) for name, loss in losses.items()}, gradients

    def with_additive_losses(self) -> Learner:
        """Leave out the mutual information, which is estimated from each micro-batch."""
        weights = self.objective.weights.model_copy(update={"specialisation": 0.0})
        return self._replace(objective=replace(self.objective, weights=weights))


def _first_turn(stage: nn.Module, _inputs: Any) -> None:
    stage.get_buffer("turn").zero_()


def freeze_statistics(network: nn.Module) -> None:
    """Make batch normalisation and router use fixed statistics, which do not depend on the micro-batch.

    The alignment loss takes the same combination of the channels in each call.
    """
    for module in network.modules():
        if isinstance(module, Aggregation):
            module.register_forward_pre_hook(_first_turn)
        if isinstance(module, nn.BatchNorm2d | AttentionGating):
            module.eval()


@pytest.fixture(params=["E", "F", "A"])
def learner(request: pytest.FixtureRequest, images: list[LabelledImage], vocabulary: Vocabulary) -> Learner:
    """Learner with the complete network (E; F: other losses), or row A, without experts and text."""
    torch.manual_seed(0)
    model: ModelConfig = SMALL.model_copy(update={"ablation": request.param})
    fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")
    network = fabric.setup(build(model).train())
    network.mark_forward_method("encode_classes")
    texts = embed_vocabulary(vocabulary, HashEncoder())
    bce_iou = not model.paper_losses
    objective = Objective(fabric, network, LossWeights(), bce_iou, ProcessGroup(), None)
    data = TrainingSet(images, vocabulary, LetterboxReader(SMALL.image_px), TrainingConfig(batch=6, zoom=0))
    return Learner(network, objective, texts, data.batch(0))
