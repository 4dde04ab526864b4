"""Rows A to D of the paper's ablation: DS-MoE without its later parts, in the order the paper adds them.

A: ResNet-50 and classes without words. B: and the class descriptions (stages 1 and 2, and the head that
compares with them). C: MobileSAM's encoder with its attention (stages 3 and 4) instead of ResNet-50. D: and
the hyperbolic alignment with its broadcasting (stages 5 and 6). E: and the dynamic experts (stages 7 to 10),
which is the whole network. F: the whole network with QFL and CIoU instead of cross-entropy and IoU.

Paper: the rows are named, not defined. We: a row has exactly the stages that its name needs.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from dsmoe_core.network import ClassEncoder, NetworkOutput
from dsmoe_core.stages.alignment import HyperbolicAlignment
from dsmoe_core.stages.broadcasting import SpaceBroadcasting
from dsmoe_core.stages.cbam import CBAM
from dsmoe_core.stages.distillation import SemanticDistillation
from dsmoe_core.stages.head import Head
from dsmoe_core.stages.image_encoder import ImageEncoder
from dsmoe_core.stages.resnet_encoder import ResNetEncoder
from dsmoe_core.stages.text_prompt import ClassIndex, TextPrompt


class AblatedDSMoE(ClassEncoder):
    """The network of rows A to D; None stands for a stage that the row does not have."""

    def __init__(
        self,
        *,
        text_prompt: TextPrompt | ClassIndex,
        distillation: SemanticDistillation | None,
        image_encoder: ImageEncoder | ResNetEncoder,
        cbam: CBAM | None,
        alignment: HyperbolicAlignment | None,
        broadcasting: SpaceBroadcasting | None,
        head: Head,
        head_levels: tuple[int, ...],
    ) -> None:
        super().__init__(text_prompt=text_prompt, distillation=distillation)
        self.image_encoder = image_encoder
        self.cbam = cbam
        self.alignment = alignment
        self.broadcasting = broadcasting
        self.head = head
        self.head_levels = head_levels

    def forward(
        self,
        images: Float[Tensor, "b 3 H W"],
        text: Float[Tensor, "s t"],
        classes: Float[Tensor, "c t"],
        maps: list[Tensor] | None = None,
    ) -> NetworkOutput:
        """As :meth:`dsmoe_core.network.DSMoE.forward`."""
        features, pyramid = self.image_encoder(images, maps)  # 3
        aligned = None
        if self.cbam is not None:
            features = self.cbam(features)  # 4
        if self.alignment is not None and self.broadcasting is not None:
            aligned = self.alignment(features, text)  # 5
            features = self.broadcasting(features, aligned, text)  # 6
        levels = self.head(features, [pyramid[i] for i in self.head_levels], classes)
        return NetworkOutput(levels, aligned, None, features.new_zeros(()))
