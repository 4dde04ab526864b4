"""Networks of rows A to D of the paper's ablation: DS-MoE without its later stages.

The rows add the stages in the paper's order:

- A: ResNet-50, and class indices instead of text.
- B: adds the class descriptions (stages 1 and 2, and the head that compares features with them).
- C: replaces ResNet-50 by MobileSAM's encoder with attention (stages 3 and 4).
- D: adds hyperbolic alignment and broadcasting (stages 5 and 6).
- E: adds the dynamic experts (stages 7 to 10); this is the complete network (network.py) and the default.
- F: the complete network, trained with QFL and CIoU instead of cross-entropy and IoU.

Paper: names the rows without defining them. We: a row has exactly the stages that its name needs.
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
    """Network of rows A to D. A stage that the row does not have is None."""

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
        """Run the stages of this ablation row; arguments as in :meth:`dsmoe_core.network.DSMoE.forward`."""
        f_enc, pyramid = self.image_encoder(images, maps)  # 3
        features = f_enc
        aligned = None
        if self.cbam is not None:
            features = self.cbam(features)  # 4
        if self.alignment is not None and self.broadcasting is not None:
            aligned = self.alignment(features, text)  # 5
            features = self.broadcasting(features, aligned, text)  # 6
        levels = self.head(features, [pyramid[i] for i in self.head_levels], classes)
        return NetworkOutput(levels, aligned, None, features.new_zeros(()), f_enc)
