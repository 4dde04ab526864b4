"""The DS-MoE network (Figure 2): ten stages and the detection head.

Class embeddings and image features are aligned in the Poincare ball, condition a sparse mixture of experts,
and are decoded to boxes and class logits.
"""

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
    """Class book encoded by stages 1 and 2; all vectors are in T^.

    The classes that condition the image features are kept apart from the classes that are scored. So adding
    or removing a class at run time changes neither the boxes nor the scores of the other classes. In training
    both are the same classes.
    """

    conditioning: Float[Tensor, "s t"]
    """Classes that the network was trained on; input of stages 5 to 9."""
    classes: Float[Tensor, "c t"]
    """Classes to score; input of the head."""
    inner: Float[Tensor, "i t"]
    """Inner nodes of the taxonomy; used by the taxonomy loss only."""
    value_overlap: Float[Tensor, ""]
    """Auxiliary loss of stage 2."""

    def select(self, rows: Int[Tensor, " a"]) -> ClassEncoding:
        """Restrict conditioning and scored classes to these rows, for a training step on a class subset."""
        return self._replace(conditioning=self.conditioning[rows], classes=self.classes[rows])


class NetworkOutput(NamedTuple):
    """Raw detections, and the intermediate results that losses and gating statistics need."""

    levels: list[LevelOutput]
    aligned: AlignmentOutput | None
    """None in a network without stage 5 (ablation.py)."""
    gated: GatingOutput | None
    """None in a network without stage 7."""
    misalignment: Float[Tensor, ""]
    """Auxiliary loss of stage 10."""
    features: Float[Tensor, "b d h w"]
    """F_enc, output of stage 3 on the working grid; does not depend on the classes."""


class StagesBeforeExperts(NamedTuple):
    """Results of stages 3 to 7 and 9, which do not depend on which experts are selected."""

    f_enc: Float[Tensor, "b d h w"]
    pyramid: list[Tensor]
    """Maps of the image encoder, finest first."""
    f_cs: Float[Tensor, "b d h w"]
    aligned: AlignmentOutput
    f_b: Float[Tensor, "b d h w"]
    gated: GatingOutput
    """The experts that the router selects."""
    f_e: Float[Tensor, "b d h w"]


class ClassEncoder(nn.Module):
    """Stages 1 and 2, which encode the class book; used alone where an exported graph runs the other stages.

    Args:
        text_prompt: stage 1.
        distillation: stage 2; None in a network without text.
    """

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
        """Compute T^ from the text encoder's embeddings, once per class book.

        Added classes attend over the conditioning classes, whose vectors therefore do not change.

        Args:
            classes: embeddings of the classes to score.
            inner: embeddings of the taxonomy's inner nodes.
            conditioning: embeddings of the classes that the network was trained on; None: ``classes``.
        """
        trained = classes if conditioning is None else conditioning
        if self.text_prompt.training:
            self.text_prompt.update(trained)
        text = self.text_prompt(trained)  # 1
        scored_text = text if conditioning is None else self.text_prompt(classes)
        if self.distillation is None:
            return ClassEncoding(text, scored_text, self.text_prompt(inner), text.new_zeros(()))
        distilled = self.distillation(text, text)  # 2
        scored = distilled.text if conditioning is None else self.distillation(scored_text, text).text
        distilled_inner = self.distillation(self.text_prompt(inner), text).text
        return ClassEncoding(distilled.text, scored, distilled_inner, distilled.value_overlap)


class DSMoE(ClassEncoder):
    """The complete network: ten stages and the head.

    Takes built modules; ``build.py`` builds them from a configuration. ``head_levels`` are the indices of the
    encoder's maps to detect on, finest first. ``head_input`` names the map that the head reads: ``f_out``, or
    the output of an earlier stage to measure what the stages after it bring.
    """

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
        head_input: str = "f_out",
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
        self.head_input = head_input

    def forward(
        self,
        images: Float[Tensor, "b 3 H W"],
        text: Float[Tensor, "s t"],
        classes: Float[Tensor, "c t"],
        maps: list[Tensor] | None = None,
    ) -> NetworkOutput:
        """Run stages 3 to 10 and the head.

        Args:
            images: RGB in [0, 1]; H and W are multiples of 32.
            text: T^ of the conditioning classes.
            classes: T^ of the classes to score.
            maps: maps of stage 3's backbone for these images, if they are already computed.
        """
        stages = self.stages_before_experts(images, text, maps)
        return self.detect(stages, stages.gated, classes)

    def stages_before_experts(
        self,
        images: Float[Tensor, "b 3 H W"],
        text: Float[Tensor, "s t"],
        maps: list[Tensor] | None = None,
    ) -> StagesBeforeExperts:
        """Run the stages that do not depend on the selected experts; arguments as in :meth:`forward`."""
        f_enc, pyramid = self.image_encoder(images, maps)  # 3
        f_cs = self.cbam(f_enc)  # 4
        aligned = self.alignment(f_cs, text)  # 5
        f_b = self.broadcasting(f_cs, aligned, text)  # 6
        gated = self.gating(f_b, text)  # 7
        f_e = self.ensemble(f_b, text, aligned, gated)  # 9
        return StagesBeforeExperts(f_enc, pyramid, f_cs, aligned, f_b, gated, f_e)

    def detect(
        self, stages: StagesBeforeExperts, selection: GatingOutput, classes: Float[Tensor, "c t"]
    ) -> NetworkOutput:
        """Run the selected experts, stage 10 and the head.

        Args:
            selection: the experts of each position.
            classes: T^ of the classes to score.
        """
        f_moe = self.experts(stages.f_b, selection)  # 8
        f_out, misalignment = self.aggregation(stages.f_e, f_moe)  # 10
        maps_by_name = {
            "f_enc": stages.f_enc,
            "f_cs": stages.f_cs,
            "f_b": stages.f_b,
            "f_e": stages.f_e,
            "f_out": f_out,
        }
        shallow = [stages.pyramid[i] for i in self.head_levels]
        levels = self.head(maps_by_name[self.head_input], shallow, classes)
        return NetworkOutput(levels, stages.aligned, selection, misalignment, stages.f_enc)
