"""Maps the tensor names of ``mobile_sam.pt`` to the names in our network.

The authors' code and ours define the same network with different modules: our image encoder is timm's
TinyViT, our prompt encoder and mask decoder are transformers' SAM. Differences, theirs -> ours:

- Encoder: ``Conv2d_BN.c`` -> ``ConvNorm.conv``; the patch embedding is a sequence -> two named convolutions;
  a patch merging ends a layer -> it begins the next stage; the neck is inside the encoder -> outside.
- Prompt encoder: other names for the Gaussian matrix of the positional code, the point embeddings, and the
  convolutions of the mask.
- Mask decoder: ``normN`` -> ``layer_normN``; the upscaling is a sequence -> named layers; the layers of a
  multi-layer perceptron are one list -> the first and the last have names of their own.

The classifier (``norm_head``, ``head``) is ignored, because MobileSAM never calls it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

ENCODER, NECK, PROMPT_ENCODER, MASK_DECODER = "image_encoder", "neck", "prompt_encoder", "mask_decoder"
COMPONENTS = (ENCODER, NECK, PROMPT_ENCODER, MASK_DECODER)

_IGNORED = re.compile(r"image_encoder\.(norm_)?head\.")


def _next_stage(match: re.Match[str]) -> str:
    """Rename the patch merging at the end of layer i to the beginning of stage i + 1."""
    return f"{match[1]}stages.{int(match[2]) + 1}.downsample."


# Applied in this order, each to the result of the previous one.
_RULES: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = tuple(
    (re.compile(pattern), ours)
    for pattern, ours in (
        (r"^image_encoder\.neck\.", "neck."),
        (r"^(image_encoder\.patch_embed\.)seq\.0\.", r"\1conv1."),
        (r"^(image_encoder\.patch_embed\.)seq\.2\.", r"\1conv2."),
        (r"^(image_encoder\.)layers\.(\d+)\.downsample\.", _next_stage),
        (r"^(image_encoder\.)layers\.", r"\1stages."),
        (r"^(image_encoder\..+)\.c\.", r"\1.conv."),
        (
            r"^(prompt_encoder\.)pe_layer\.positional_encoding_gaussian_matrix$",
            r"\1shared_embedding.positional_embedding",
        ),
        (r"^(prompt_encoder\.)point_embeddings\.", r"\1point_embed."),
        (r"^(prompt_encoder\.)mask_downscaling\.0\.", r"\1mask_embed.conv1."),
        (r"^(prompt_encoder\.)mask_downscaling\.1\.", r"\1mask_embed.layer_norm1."),
        (r"^(prompt_encoder\.)mask_downscaling\.3\.", r"\1mask_embed.conv2."),
        (r"^(prompt_encoder\.)mask_downscaling\.4\.", r"\1mask_embed.layer_norm2."),
        (r"^(prompt_encoder\.)mask_downscaling\.6\.", r"\1mask_embed.conv3."),
        (r"^(mask_decoder\.transformer\.layers\.\d+\.)norm(\d)\.", r"\1layer_norm\2."),
        (r"^(mask_decoder\.transformer\.)norm_final_attn\.", r"\1layer_norm_final_attn."),
        (r"^(mask_decoder\.)output_upscaling\.0\.", r"\1upscale_conv1."),
        (r"^(mask_decoder\.)output_upscaling\.1\.", r"\1upscale_layer_norm."),
        (r"^(mask_decoder\.)output_upscaling\.3\.", r"\1upscale_conv2."),
        (r"^(mask_decoder\.output_hypernetworks_mlps\.\d+\.)layers\.0\.", r"\1proj_in."),
        (r"^(mask_decoder\.output_hypernetworks_mlps\.\d+\.)layers\.1\.", r"\1layers.0."),
        (r"^(mask_decoder\.output_hypernetworks_mlps\.\d+\.)layers\.2\.", r"\1proj_out."),
        (r"^(mask_decoder\.iou_prediction_head\.)layers\.0\.", r"\1proj_in."),
        (r"^(mask_decoder\.iou_prediction_head\.)layers\.1\.", r"\1layers.0."),
        (r"^(mask_decoder\.iou_prediction_head\.)layers\.2\.", r"\1proj_out."),
    )
)


def converted_name(theirs: str) -> str | None:
    """Return our name of a tensor of ``mobile_sam.pt``, or None if the tensor is ignored.

    A name that no rule matches is returned unchanged; the network may not have it.
    """
    if _IGNORED.match(theirs):
        return None
    name = theirs
    for pattern, ours in _RULES:
        name = pattern.sub(ours, name)
    return name


def component_of(ours: str) -> str:
    """Return the component of the network that a tensor with our name belongs to."""
    return ours.partition(".")[0]
