"""From a configuration to a network; the only place that knows both."""

from __future__ import annotations

from timm.models.tiny_vit import TinyVit
from torch import nn

from dsmoe_core.config import ModelConfig
from dsmoe_core.network import DSMoE
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
from dsmoe_core.stages.text_prompt import TextPrompt

STRIDES = (4, 8, 16, 32)


def build(config: ModelConfig) -> DSMoE:
    """The network of this shape, with fresh weights from torch's global generator."""
    d, d_t, n = config.width, config.text_width, config.ball_dim
    head_levels = tuple(STRIDES.index(s) for s in config.head_strides)
    return DSMoE(
        text_prompt=TextPrompt(width=d_t, position=config.class_position),
        distillation=SemanticDistillation(width=d_t, heads=config.text_heads),
        image_encoder=ImageEncoder(
            backbone=_backbone(config),
            widths=config.encoder_widths,
            strides=STRIDES,
            grid_stride=config.grid_stride,
            width=d,
        ),
        cbam=CBAM(width=d),
        alignment=HyperbolicAlignment(width=d, text_width=d_t, ball_dim=n),
        broadcasting=SpaceBroadcasting(width=d, text_width=d_t, ball_dim=n),
        gating=AttentionGating(width=d, text_width=d_t, experts=config.experts, top_k=config.top_k),
        experts=SparseExperts(
            width=d, text_width=d_t, experts=config.experts, grid_stride=config.grid_stride
        ),
        ensemble=HeterogeneousEnsemble(width=d, text_width=d_t, text_channels=n // 2, experts=config.experts),
        aggregation=Aggregation(width=d),
        head=Head(
            width=d,
            text_width=d_t,
            shallow={STRIDES[i]: config.encoder_widths[i] for i in head_levels},
            hidden=config.head_width,
        ),
        head_levels=head_levels,
    )


def _backbone(config: ModelConfig) -> TinyVit:
    """TinyViT; with the widths and depths of ``base`` it is MobileSAM's encoder to the letter."""
    backbone = TinyVit(
        embed_dims=config.encoder_widths,
        depths=config.encoder_depths,
        num_heads=config.encoder_heads,
        window_sizes=config.encoder_windows,
        num_classes=0,
        drop_path_rate=0.0,
    )
    backbone.head = nn.Identity()  # its classifier is not used
    return backbone
