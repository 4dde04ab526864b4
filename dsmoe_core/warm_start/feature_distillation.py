"""Pretraining of the image encoder by feature distillation from EfficientNet-Lite0 with ImageNet weights.

The teacher is frozen. A 1 x 1 convolution maps the student's features at stride 16 to the teacher's width,
and the loss is 1 - cosine, averaged over all positions, as in the hint of Romero et al., "FitNets" (ICLR
2015), but without the scale of the features. It needs no labels: both networks get the same images.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dsmoe_core.checkpoint import read_tensors
from dsmoe_core.config import STRIDES, ModelConfig
from dsmoe_core.efficientnet.backbone import WIDTHS, EfficientNetLite0
from dsmoe_core.warm_start.checkpoint import require_file

LEVEL = STRIDES.index(16)
"""The map that is distilled."""


class DistilledModel(nn.Module):
    """Student backbone with the projection to the features of a teacher.

    Args:
        backbone: backbone of stage 3.
        width: channels of its map at stride 16.
        teacher: trained backbone; it is frozen, and its weights are no part of this module's state.
    """

    def __init__(self, *, backbone: nn.Module, width: int, teacher: EfficientNetLite0) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection = nn.Conv2d(width, WIDTHS[LEVEL], 1)
        self._teacher = [teacher.eval().requires_grad_(False)]  # in a list: not a submodule

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, ""]:
        """Compute 1 - cosine, the mean over all positions.

        Args:
            images: RGB in [0, 1].
        """
        centred = images - 0.5
        with torch.no_grad():
            teacher = self._teacher[0].to(images.device)
            wanted = teacher.forward_intermediates(centred, intermediates_only=True)[LEVEL].float()
        maps = self.backbone.forward_intermediates(centred, intermediates_only=True)  # type: ignore[operator]
        given = self.projection(maps[LEVEL]).float()
        return 1 - F.cosine_similarity(given, wanted, dim=1).mean()


class FeatureDistillation:
    """The objective of :class:`DistilledModel`.

    Args:
        network: its image encoder is pretrained.
        model: configuration of the network.
        teacher: file of EfficientNet-Lite0's converted weights (efficientnet/weights.py).

    Raises:
        PrerequisiteError: the file does not exist.
    """

    loss_name = "distillation"

    def __init__(self, network: nn.Module, model: ModelConfig, teacher: Path) -> None:
        require_file(teacher)
        trained = EfficientNetLite0()
        trained.features.load_state_dict(read_tensors(teacher)[0])
        self.module: nn.Module = DistilledModel(
            backbone=network.get_submodule("image_encoder.backbone"),
            width=model.encoder_widths[LEVEL],
            teacher=trained,
        )

    def step_inputs(self, images: int, step: int) -> tuple[Tensor, ...]:
        """Nothing: the loss depends on the images alone."""
        del images, step
        return ()
