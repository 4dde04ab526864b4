"""Builds networks from a configuration."""

from __future__ import annotations

import timm
from timm.models.tiny_vit import TinyVit
from torch import nn

from dsmoe_core.ablation import AblatedDSMoE
from dsmoe_core.config import STRIDES, ModelConfig
from dsmoe_core.efficientnet import backbone as efficientnet
from dsmoe_core.efficientnet.backbone import EfficientNetLite0
from dsmoe_core.network import ClassEncoder, DSMoE
from dsmoe_core.stages.aggregation import Aggregation
from dsmoe_core.stages.alignment import HyperbolicAlignment
from dsmoe_core.stages.broadcasting import SpaceBroadcasting
from dsmoe_core.stages.cbam import CBAM
from dsmoe_core.stages.distillation import SemanticDistillation
from dsmoe_core.stages.ensemble import HeterogeneousEnsemble
from dsmoe_core.stages.experts import SparseExperts
from dsmoe_core.stages.gating import PAPER_TAU, TAU, AttentionGating
from dsmoe_core.stages.head import Head
from dsmoe_core.stages.image_encoder import ImageEncoder
from dsmoe_core.stages.resnet_encoder import ResNetEncoder
from dsmoe_core.stages.text_prompt import ClassIndex, TextPrompt

RESNET_WIDTHS = (256, 512, 1024, 2048)


def build(config: ModelConfig) -> DSMoE | AblatedDSMoE:
    """Build the network of a configuration, with initial weights from torch's global random generator."""
    return build_full_network(config) if config.dynamic_experts else _ablated(config)


def build_full_network(config: ModelConfig) -> DSMoE:
    """Build the network with all ten stages, whatever the ablation row is."""
    d, d_t, n, paper = config.width, config.text_width, config.ball_dim, config.paper
    return DSMoE(
        text_prompt=_text_prompt(config),
        distillation=_distillation(config),
        image_encoder=_image_encoder(config),
        cbam=CBAM(width=d, attention_only=paper.bare_attention),
        alignment=_alignment(config),
        broadcasting=_broadcasting(config),
        gating=AttentionGating(
            width=d,
            text_width=d_t,
            experts=config.experts,
            top_k=config.top_k,
            tail_top_k=config.tail_top_k,
            per_position=config.routing == "position",
            normalise=not paper.free_product,
            renormalise=not paper.raw_weights,
            learned_queries=not paper.class_experts,
            balance=not paper.free_choice,
            tau=PAPER_TAU if paper.calibrated_tau else TAU,
        ),
        experts=SparseExperts(
            width=d,
            text_width=d_t,
            experts=config.experts,
            grid_stride=config.grid_stride,
            task_experts=config.task_experts,
        ),
        ensemble=HeterogeneousEnsemble(
            width=d,
            text_width=d_t,
            text_channels=n // 2,
            experts=config.experts,
            summed=paper.summed_ensemble,
        ),
        aggregation=Aggregation(width=d, gate_only=paper.gate_only, minimise_cosine=paper.minimised_cosine),
        head=_head(config, _backbone_widths(config)),
        head_levels=_head_levels(config),
        head_input=config.head_input,
    )


def _ablated(config: ModelConfig) -> AblatedDSMoE:
    """Build the network of rows A to D."""
    class_encoder = build_class_encoder(config)
    return AblatedDSMoE(
        text_prompt=class_encoder.text_prompt,
        distillation=class_encoder.distillation,
        image_encoder=_image_encoder(config) if config.mobile_sam else _resnet_encoder(config),
        cbam=CBAM(width=config.width, attention_only=config.paper.bare_attention)
        if config.mobile_sam
        else None,
        alignment=_alignment(config) if config.hyperbolic else None,
        broadcasting=_broadcasting(config) if config.hyperbolic else None,
        head=_head(config, _backbone_widths(config) if config.mobile_sam else RESNET_WIDTHS),
        head_levels=_head_levels(config),
    )


def build_class_encoder(config: ModelConfig) -> ClassEncoder:
    """Build stages 1 and 2 alone, with the state-dict names that they have in the complete network."""
    return ClassEncoder(
        text_prompt=_text_prompt(config) if config.uses_text else ClassIndex(),
        distillation=_distillation(config) if config.uses_text else None,
    )


def _text_prompt(config: ModelConfig) -> TextPrompt:
    paper = config.paper
    return TextPrompt(
        width=config.text_width, position=paper.class_position, centred=not paper.uncentred_text
    )


def _distillation(config: ModelConfig) -> SemanticDistillation:
    return SemanticDistillation(width=config.text_width, heads=config.text_heads)


def _image_encoder(config: ModelConfig) -> ImageEncoder:
    return ImageEncoder(
        backbone=EfficientNetLite0() if config.backbone == "efficientnet-lite0" else tiny_vit(config),
        widths=_backbone_widths(config),
        strides=STRIDES,
        grid_stride=config.grid_stride,
        width=config.width,
        as_stride=config.paper.stride_pooling,
    )


def _backbone_widths(config: ModelConfig) -> tuple[int, int, int, int]:
    """Channels of the maps of the image encoder's backbone in rows C to F."""
    return efficientnet.WIDTHS if config.backbone == "efficientnet-lite0" else config.encoder_widths


def _resnet_encoder(config: ModelConfig) -> ResNetEncoder:
    backbone = timm.create_model("resnet50", num_classes=0)
    return ResNetEncoder(
        backbone=backbone, widths=RESNET_WIDTHS, grid_stride=config.grid_stride, width=config.width
    )


def _alignment(config: ModelConfig) -> HyperbolicAlignment:
    return HyperbolicAlignment(width=config.width, text_width=config.text_width, ball_dim=config.ball_dim)


def _broadcasting(config: ModelConfig) -> SpaceBroadcasting:
    return SpaceBroadcasting(
        width=config.width,
        text_width=config.text_width,
        ball_dim=config.ball_dim,
        floor_dilation=config.paper.floor_dilation,
        log_mapped=config.paper.mapped_fusion,
    )


def _head_levels(config: ModelConfig) -> tuple[int, ...]:
    return tuple(STRIDES.index(s) for s in config.head_strides)


def _head(config: ModelConfig, widths: tuple[int, ...]) -> Head:
    return Head(
        width=config.width,
        text_width=config.text_width,
        encoded={STRIDES[i]: widths[i] for i in _head_levels(config)},
        hidden=config.head_width,
        shallow=config.head_shallow,
    )


def tiny_vit(config: ModelConfig) -> TinyVit:
    """Build the TinyViT backbone; with the widths and depths of ``base`` it equals MobileSAM's encoder."""
    backbone = TinyVit(
        embed_dims=config.encoder_widths,
        depths=config.encoder_depths,
        num_heads=config.encoder_heads,
        window_sizes=config.encoder_windows,
        num_classes=0,
        drop_path_rate=0.0,
    )
    backbone.head = nn.Identity()  # the classifier is not used
    return backbone
