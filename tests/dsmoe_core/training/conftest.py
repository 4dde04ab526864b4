"""A small network with what it is trained for."""

from __future__ import annotations

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
from dsmoe_core.stages.gating import AttentionGating
from dsmoe_core.text_embeddings import TextEmbeddings, embed_vocabulary
from dsmoe_core.training.distributed import ProcessGroup
from dsmoe_core.training.objective import Objective
from dsmoe_core.training.step_sampler import TrainingStep


class Learner(NamedTuple):
    """A network in training, a batch, and the objective."""

    network: Any
    objective: Objective
    words: TextEmbeddings
    batch: Batch

    def gradients(
        self, micro_batch: int, batch: Batch | None = None
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Losses and gradients by name."""
        self.network.zero_grad(set_to_none=True)
        words = self.words
        everything = torch.arange(len(words.classes))
        question = TrainingStep.about(everything, batch or self.batch, words.classes, words)
        losses = self.objective.gradients(question, micro_batch)
        named = {n: p.grad.clone() for n, p in self.network.named_parameters() if p.grad is not None}
        return {name: float(loss) for name, loss in losses.items()}, named


def freeze_statistics(network: nn.Module) -> None:
    """Norms and router go by what they have counted so far, which no part of a batch changes."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | AttentionGating):
            module.eval()


@pytest.fixture(params=["F", "A"])
def learner(request: pytest.FixtureRequest, images: list[LabelledImage], vocabulary: Vocabulary) -> Learner:
    """Of the whole network, and of row A, which has neither experts nor text."""
    torch.manual_seed(0)
    model: ModelConfig = SMALL.model_copy(update={"ablation": request.param})
    fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")
    network = fabric.setup(build(model).train())
    network.mark_forward_method("encode_classes")
    words = embed_vocabulary(vocabulary, HashEncoder())
    plain = not model.paper_losses
    objective = Objective(fabric, network, LossWeights(), plain, ProcessGroup(), None)
    data = TrainingSet(images, vocabulary, LetterboxReader(SMALL.image_px), TrainingConfig(batch=6, zoom=0))
    return Learner(network, objective, words, data.batch(0))
