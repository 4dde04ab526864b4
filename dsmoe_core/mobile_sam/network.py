"""The MobileSAM network (Zhang et al. 2023): TinyViT, a neck, and SAM's prompt encoder and mask decoder.

Its encoder equals that of the detector's size ``base``, except that the last patch merging keeps the
resolution, so that the features have stride 16.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from transformers import SamConfig, SamMaskDecoderConfig, SamPromptEncoderConfig
from transformers.models.sam.modeling_sam import SamMaskDecoder, SamPromptEncoder

from dsmoe_core.build import tiny_vit
from dsmoe_core.config import ModelConfig

SIDE = 1024
"""Side of the square input of its training, in pixels."""
STRIDE = 16
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Normalisation of its training, for RGB from 0 to 255."""


class MobileSam(nn.Module):
    """The complete network; its state-dict names are those of :mod:`dsmoe_core.mobile_sam.names`.

    Args:
        side: side of the square input in pixels, a multiple of 16. The weights were trained at 1024; a
            smaller square is faster and less accurate.
    """

    def __init__(self, side: int = SIDE) -> None:
        super().__init__()
        self.side = side
        self.grid = side // STRIDE
        base = ModelConfig.of_size("base")
        self.image_encoder = tiny_vit(base)
        self.image_encoder.stages[3].downsample.conv2.conv.stride = (1, 1)
        prompts = SamPromptEncoderConfig(image_size=side, patch_size=STRIDE)
        # transformers' default is 1e-6; the original uses torch's LayerNorm with its default, 1e-5.
        masks = SamMaskDecoderConfig(layer_norm_eps=1e-5, attn_implementation="sdpa")
        width = masks.hidden_size
        self.neck = nn.Sequential(
            nn.Conv2d(base.encoder_widths[3], width, 1, bias=False),
            LayerNorm2d(width),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            LayerNorm2d(width),
        )
        self.prompt_encoder = SamPromptEncoder(SamConfig(prompt_encoder_config=prompts))
        self.mask_decoder = SamMaskDecoder(masks)

    def embed(self, squares: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b d g g"]:
        """Encode images; ``squares`` are normalised with ``MEAN`` and ``STD``."""
        embedding: Tensor = self.neck(self.image_encoder.forward_features(squares))
        return embedding

    def decode(
        self,
        embedding: Float[Tensor, "1 d g g"],
        *,
        points: Float[Tensor, "p 2"] | None,
        labels: Int[Tensor, " p"] | None,
        box: Float[Tensor, " 4"] | None,
        multimask: bool,
    ) -> tuple[Float[Tensor, "m G G"], Float[Tensor, " m"]]:
        """Decode mask logits at a quarter of the input side, and the predicted IoU of each mask.

        Args:
            embedding: output of :meth:`embed` for one image.
            points: x and y in pixels of the square.
            labels: for each point, 1 inside the object, 0 outside.
            box: x1, y1, x2, y2 in pixels of the square.
            multimask: return three masks for an ambiguous prompt instead of one.
        """
        sparse, dense = self.prompt_encoder(
            input_points=None if points is None else points[None, None],
            input_labels=None if labels is None else labels[None, None],
            input_boxes=None if box is None else box[None, None],
            input_masks=None,
        )
        masks, scores = self.mask_decoder(
            image_embeddings=embedding,
            image_positional_embeddings=self._position(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
        )
        return masks[0, 0], scores[0, 0]

    def _position(self) -> Float[Tensor, "1 d g g"]:
        """Compute the positional code of every cell's centre."""
        code = self.prompt_encoder.shared_embedding
        centres = (torch.arange(self.grid, device=code.positional_embedding.device) + 0.5) / self.grid
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        position: Tensor = code(torch.stack([x, y], dim=-1))
        return position.permute(2, 0, 1)[None]
