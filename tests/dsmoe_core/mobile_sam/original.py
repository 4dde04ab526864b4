"""What the authors' ``mobile_sam.pt`` holds: their modules one by one, without our mapping of names."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]
Weights = dict[str, Tensor]
WIDTHS, DEPTHS, HEADS, WINDOWS = (64, 128, 160, 320), (2, 2, 6, 2), (2, 4, 5, 10), (7, 7, 14, 7)


def under(prefix: str, shapes: Shapes) -> Shapes:
    return {f"{prefix}.{name}": shape for name, shape in shapes.items()}


def affine(n: int) -> Shapes:
    return {"weight": (n,), "bias": (n,)}


def linear(a: int, b: int) -> Shapes:
    return {"weight": (b, a), "bias": (b,)}


def conv_bn(a: int, b: int, k: int = 1, groups: int = 1) -> Shapes:
    statistics: Shapes = {"running_mean": (b,), "running_var": (b,), "num_batches_tracked": ()}
    return {"c.weight": (b, a // groups, k, k), **under("bn", {**affine(b), **statistics})}


def merging(a: int, b: int) -> Shapes:
    depthwise = under("conv2", conv_bn(b, b, 3, groups=b))
    return {**under("conv1", conv_bn(a, b)), **depthwise, **under("conv3", conv_bn(b, b))}


def mbconv(n: int) -> Shapes:
    wide = 4 * n
    depthwise = under("conv2", conv_bn(wide, wide, 3, groups=wide))
    return {**under("conv1", conv_bn(n, wide)), **depthwise, **under("conv3", conv_bn(wide, n))}


def transformer_block(n: int, heads: int, window: int) -> Shapes:
    attention = {
        "attention_biases": (heads, window * window),
        **under("norm", affine(n)),
        **under("qkv", linear(n, 3 * n)),
        **under("proj", linear(n, n)),
    }
    mlp = {
        **under("norm", affine(n)),
        **under("fc1", linear(n, 4 * n)),
        **under("fc2", linear(4 * n, n)),
    }
    local = under("local_conv", conv_bn(n, n, 3, groups=n))
    return {**under("attn", attention), **under("mlp", mlp), **local}


def image_encoder() -> Shapes:
    found = {
        **under("patch_embed.seq.0", conv_bn(3, 32, 3)),
        **under("patch_embed.seq.2", conv_bn(32, 64, 3)),
    }
    for i, (n, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True)):
        for j in range(depth):
            block = transformer_block(n, HEADS[i], WINDOWS[i]) if i else mbconv(n)
            found |= under(f"layers.{i}.blocks.{j}", block)
        if i < 3:
            found |= under(f"layers.{i}.downsample", merging(n, WIDTHS[i + 1]))
    found |= under("norm_head", affine(320)) | under("head", linear(320, 1000))
    found |= {"neck.0.weight": (256, 320, 1, 1), "neck.2.weight": (256, 256, 3, 3)}
    return found | under("neck.1", affine(256)) | under("neck.3", affine(256))


def prompt_encoder() -> Shapes:
    found: Shapes = {
        "pe_layer.positional_encoding_gaussian_matrix": (2, 128),
        "not_a_point_embed.weight": (1, 256),
        "no_mask_embed.weight": (1, 256),
        **{f"point_embeddings.{i}.weight": (1, 256) for i in range(4)},
    }
    for i, (a, b, k) in {0: (1, 4, 2), 3: (4, 16, 2), 6: (16, 256, 1)}.items():
        found |= {f"mask_downscaling.{i}.weight": (b, a, k, k), f"mask_downscaling.{i}.bias": (b,)}
    return found | under("mask_downscaling.1", affine(4)) | under("mask_downscaling.4", affine(16))


def decoder_attention(inner: int) -> Shapes:
    into = {name: linear(256, inner) for name in ("q_proj", "k_proj", "v_proj")}
    both = {**into, "out_proj": linear(inner, 256)}
    return {k: v for name, shapes in both.items() for k, v in under(name, shapes).items()}


def perceptron(*widths: int) -> Shapes:
    layers = enumerate(pairwise(widths))
    return {k: v for i, (a, b) in layers for k, v in under(f"layers.{i}", linear(a, b)).items()}


def mask_decoder() -> Shapes:
    found: Shapes = {"iou_token.weight": (1, 256), "mask_tokens.weight": (4, 256)}
    for i in range(2):
        layer = under("self_attn", decoder_attention(256))
        for cross in ("cross_attn_token_to_image", "cross_attn_image_to_token"):
            layer |= under(cross, decoder_attention(128))
        layer |= under("mlp.lin1", linear(256, 2048)) | under("mlp.lin2", linear(2048, 256))
        for j in range(1, 5):
            layer |= under(f"norm{j}", affine(256))
        found |= under(f"transformer.layers.{i}", layer)
    found |= under("transformer.final_attn_token_to_image", decoder_attention(128))
    found |= under("transformer.norm_final_attn", affine(256))
    found |= {"output_upscaling.0.weight": (256, 64, 2, 2), "output_upscaling.0.bias": (64,)}
    found |= {"output_upscaling.3.weight": (64, 32, 2, 2), "output_upscaling.3.bias": (32,)}
    found |= under("output_upscaling.1", affine(64))
    for i in range(4):
        found |= under(f"output_hypernetworks_mlps.{i}", perceptron(256, 256, 256, 32))
    return found | under("iou_prediction_head", perceptron(256, 256, 256, 4))


def shapes() -> Shapes:
    """Every tensor of ``mobile_sam.pt`` by its name."""
    return {
        **under("image_encoder", image_encoder()),
        **under("prompt_encoder", prompt_encoder()),
        **under("mask_decoder", mask_decoder()),
    }


def random_weights(seed: int = 0) -> Weights:
    """A network that passes something on at every place, and is symmetric at none."""
    generator = torch.Generator().manual_seed(seed)

    def one(name: str, shape: tuple[int, ...]) -> Tensor:
        if name.endswith("num_batches_tracked"):
            return torch.tensor(7)
        noise = torch.randn(shape, generator=generator)
        if name.endswith("running_var"):
            return noise.square() + 0.5
        if len(shape) == 1:
            return 1 + 0.1 * noise if name.endswith("weight") else 0.1 * noise
        if len(shape) == 2 and shape[0] in (1, 2, 4):  # tokens, points and the positional code
            return noise
        return noise / math.sqrt(math.prod(shape[1:]))

    return {name: one(name, shape) for name, shape in shapes().items()}
