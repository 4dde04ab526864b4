"""DS-MoE, as in Figure 2: text and image meet in the Poincare ball, steer sparse experts, become boxes."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor, nn

from dsmoe_core.outputs import AlignmentOutput, GatingOutput, LevelOutput
from dsmoe_core.stages.aggregation import Aggregation
from dsmoe_core.stages.alignment import HyperbolicAlignment
from dsmoe_core.stages.broadcasting import SpaceBroadcasting
from dsmoe_core.stages.cbam import CBAM
from dsmoe_core.stages.distillation import SemanticDistillation
from dsmoe_core.stages.ensemble import HeterogeneousEnsemble
from dsmoe_core.stages.experts import SparseExperts
from dsmoe_core.stages.gating import AttentionGating
from dsmoe_core.stages.head import Head
from dsmoe_core.stages.image_encoder import ImageEncoder
from dsmoe_core.stages.text_prompt import ClassIndex, TextPrompt


class ClassEncoding(NamedTuple):
    """A class book as the network reads it, all in T^.

    What steers the pixels and what is scored are apart, so that a class which is added or removed at run time
    leaves the boxes and the scores of the others as they are. In training both are the same.
    """

    conditioning: Float[Tensor, "s t"]
    """The classes that the network was trained on; stages 5 to 9 read them."""
    classes: Float[Tensor, "c t"]
    """The classes that are asked for; the head scores them."""
    inner: Float[Tensor, "i t"]
    """The taxonomy's inner nodes; the taxonomy loss alone reads them."""
    value_overlap: Float[Tensor, ""]

    def about(self, asked: Int[Tensor, " a"]) -> ClassEncoding:
        """The same book where these rows of its classes alone are asked about, and steer.

        Both are the same classes, as in training.
        """
        return self._replace(conditioning=self.conditioning[asked], classes=self.classes[asked])


class NetworkOutput(NamedTuple):
    """The answer, and what training and the statistics need of the way there."""

    levels: list[LevelOutput]
    aligned: AlignmentOutput | None
    """None in a network without stage 5 (``ablation.py``)."""
    gated: GatingOutput | None
    """None in a network without stage 7."""
    misalignment: Float[Tensor, ""]


class ClassEncoder(nn.Module):
    """Stages 1 and 2, which read the class book; alone where the other stages run elsewhere."""

    def __init__(
        self, *, text_prompt: TextPrompt | ClassIndex, distillation: SemanticDistillation | None
    ) -> None:
        super().__init__()
        self.text_prompt = text_prompt
        self.distillation = distillation

    def encode_classes(
        self,
        classes: Float[Tensor, "c t"],
        inner: Float[Tensor, "i t"],
        conditioning: Float[Tensor, "s t"] | None = None,
    ) -> ClassEncoding:
        """Once per class book: the encoder's vectors of the descriptions to T^.

        Added classes attend over the steering ones, which therefore stay as they are.

        Args:
            steering: the classes that the network was trained on; none: ``classes`` are these.
        """
        of_training = classes if conditioning is None else conditioning
        if self.text_prompt.training:
            self.text_prompt.follow(of_training)
        text = self.text_prompt(of_training)  # 1
        asked = text if conditioning is None else self.text_prompt(classes)
        if self.distillation is None:
            return ClassEncoding(text, asked, self.text_prompt(inner), text.new_zeros(()))
        distilled = self.distillation(text, text)  # 2
        scored = distilled.text if conditioning is None else self.distillation(asked, text).text
        above = self.distillation(self.text_prompt(inner), text).text
        return ClassEncoding(distilled.text, scored, above, distilled.value_overlap)


class DSMoE(ClassEncoder):
    """The ten stages and the head. Takes built modules; ``build.py`` makes them from a configuration."""

    def __init__(
        self,
        *,
        text_prompt: TextPrompt,
        distillation: SemanticDistillation,
        image_encoder: ImageEncoder,
        cbam: CBAM,
        alignment: HyperbolicAlignment,
        broadcasting: SpaceBroadcasting,
        gating: AttentionGating,
        experts: SparseExperts,
        ensemble: HeterogeneousEnsemble,
        aggregation: Aggregation,
        head: Head,
        head_levels: tuple[int, ...],
    ) -> None:
        super().__init__(text_prompt=text_prompt, distillation=distillation)
        self.image_encoder = image_encoder
        self.cbam = cbam
        self.alignment = alignment
        self.broadcasting = broadcasting
        self.gating = gating
        self.experts = experts
        self.ensemble = ensemble
        self.aggregation = aggregation
        self.head = head
        self.head_levels = head_levels

    def forward(
        self,
        images: Float[Tensor, "b 3 H W"],
        text: Float[Tensor, "s t"],
        classes: Float[Tensor, "c t"],
        maps: list[Tensor] | None = None,
    ) -> NetworkOutput:
        """Stages 3 to 10 and the head, for RGB images in [0, 1], T^ of steering and of scored classes.

        Args:
            maps: what the backbone of stage 3 makes of the images, where that is known.
        """
        f_enc, pyramid = self.image_encoder(images, maps)  # 3
        f_cs = self.cbam(f_enc)  # 4
        aligned = self.alignment(f_cs, text)  # 5
        f_b = self.broadcasting(f_cs, aligned, text)  # 6
        gated = self.gating(f_b, text)  # 7
        f_moe = self.experts(f_b, gated)  # 8
        f_e = self.ensemble(f_b, text, aligned, gated)  # 9
        f_out, misalignment = self.aggregation(f_e, f_moe)  # 10
        levels = self.head(f_out, [pyramid[i] for i in self.head_levels], classes)
        return NetworkOutput(levels, aligned, gated, misalignment)
