"""Self-supervised pretraining of the image encoder by masked image modelling (SimMIM).

SimMIM (Xie et al., CVPR 2022, arXiv:2111.09886): random patches of 32 x 32 pixels, 60 % of all, are masked;
one linear layer on the encoder's last map predicts their raw pixels; the loss is the mean absolute difference
over masked pixels. Unlike MAE, which drops tokens, it works with hierarchical encoders. It suits two cores:
self-distillation needs two networks and two views per image, SimMIM needs one of each and works with small
batches. SimMIM masks embedded patches. We replace the pixels by a learned colour, because TinyViT starts with
overlapping convolutions, which would leak masked pixels into their neighbours.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from dsmoe_core.config import ModelConfig

PATCH_SIZE = 32
MASK_RATIO = 0.6
_MASK_STREAM = 1 << 23  # seed that separates the masks' random stream from those of the batches


class MaskedImageModel(nn.Module):
    """Backbone with a learned mask colour and a linear decoder.

    Args:
        backbone: backbone of stage 3; its last map has stride ``PATCH_SIZE``.
        width: channels of the last map.
    """

    def __init__(self, *, backbone: nn.Module, width: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.mask_colour = nn.Parameter(torch.zeros(3))
        self.decoder = nn.Conv2d(width, 3 * PATCH_SIZE**2, 1)

    def forward(self, images: Float[Tensor, "b 3 H W"], mask: Bool[Tensor, "b h w"]) -> Float[Tensor, ""]:
        """Compute the mean absolute difference over masked pixels.

        Args:
            images: RGB in [0, 1].
            mask: patches to mask; h = H / ``PATCH_SIZE``.
        """
        pixel_mask = mask[:, None].repeat_interleave(PATCH_SIZE, 2).repeat_interleave(PATCH_SIZE, 3)
        masked = torch.where(pixel_mask, self.mask_colour[:, None, None].to(images.dtype), images - 0.5)
        last_map = self.backbone.forward_intermediates(masked, intermediates_only=True)[-1]  # type: ignore[operator]
        predicted = F.pixel_shuffle(self.decoder(last_map), PATCH_SIZE) + 0.5
        return ((predicted - images).abs() * pixel_mask).sum() / (3 * pixel_mask.sum()).clamp(min=1)


class MaskedImages:
    """The objective: mean absolute difference of masked pixels and their prediction.

    Args:
        network: its image encoder is pretrained.
        model: configuration of the network.
        seed: of the masks.
    """

    loss_name = "reconstruction"

    def __init__(self, network: nn.Module, model: ModelConfig, seed: int) -> None:
        backbone = network.get_submodule("image_encoder.backbone")
        self.module: nn.Module = MaskedImageModel(backbone=backbone, width=model.encoder_widths[-1])
        self._cells, self._seed = model.image_px // PATCH_SIZE, seed

    def step_inputs(self, images: int, step: int) -> tuple[Tensor, ...]:
        """The patches to mask."""
        return (random_patch_mask(images, self._cells, self._seed, step),)


def random_patch_mask(count: int, cells: int, seed: int, step: int) -> Bool[Tensor, "b h w"]:
    """Sample the patches to mask: the same share of every image, different ones in each step.

    Args:
        count: number of images.
        cells: patches per side of an image.
        seed, step: determine the sample.
    """
    rng = np.random.default_rng([seed, _MASK_STREAM, step])
    order = rng.random((count, cells * cells)).argsort(1).argsort(1)
    return torch.from_numpy((order < round(MASK_RATIO * cells * cells)).reshape(count, cells, cells))
