"""EfficientNet-Lite0, a backbone that has published ImageNet weights in a package registry.

Tan and Le, "EfficientNet: Rethinking model scaling for convolutional neural networks" (2019); the Lite form
has ReLU6 and no squeeze-and-excitation. The module is timm's, without the last convolution and the
classifier.
"""

from __future__ import annotations

from typing import Literal

import timm
from jaxtyping import Float
from timm.layers import freeze_batch_norm_2d
from torch import Tensor, nn

WIDTHS = (24, 40, 112, 320)
"""Channels of the maps at strides 4, 8, 16 and 32."""


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 backbone, 3.0 million parameters.

    Its batch normalisations keep the statistics and scales of the published weights, because batches of four
    images estimate them badly.
    """

    def __init__(self) -> None:
        super().__init__()
        features = timm.create_model(
            "tf_efficientnet_lite0", features_only=True, out_indices=(1, 2, 3, 4), drop_path_rate=0.0
        )
        self.features = freeze_batch_norm_2d(features)

    def forward_intermediates(
        self, images: Float[Tensor, "b 3 H W"], *, intermediates_only: Literal[True]
    ) -> list[Tensor]:
        """Return the maps at strides 4, 8, 16 and 32 of images in [-1/2, 1/2]; called as timm's."""
        del intermediates_only
        maps: list[Tensor] = self.features(2 * images)  # the published weights expect [-1, 1]
        return maps
