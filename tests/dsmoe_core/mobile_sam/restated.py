"""What the authors' MobileSAM computes, in plain torch, from weights under their names; slow and obvious."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.dsmoe_core.mobile_sam.original import DEPTHS, HEADS, WINDOWS, Weights


def of(weights: Weights, prefix: str) -> Weights:
    """Those under a prefix, without it."""
    return {k.removeprefix(f"{prefix}."): v for k, v in weights.items() if k.startswith(f"{prefix}.")}


def run_conv_bn(w: Weights, x: Tensor, stride: int = 1) -> Tensor:
    kernel = w["c.weight"]
    groups = x.shape[1] // kernel.shape[1]
    x = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2, groups=groups)
    spread = torch.sqrt(w["bn.running_var"] + 1e-5)
    x = (x - w["bn.running_mean"][:, None, None]) / spread[:, None, None]
    return x * w["bn.weight"][:, None, None] + w["bn.bias"][:, None, None]


def run_three(w: Weights, x: Tensor, stride: int = 1) -> Tensor:
    """1 x 1, 3 x 3 depthwise, 1 x 1, with GELU between; a merging, or the inner of an MBConv."""
    x = F.gelu(run_conv_bn(of(w, "conv1"), x))
    x = F.gelu(run_conv_bn(of(w, "conv2"), x, stride))
    return run_conv_bn(of(w, "conv3"), x)


def run_norm(w: Weights, x: Tensor, eps: float = 1e-5) -> Tensor:
    """Over the last dimension."""
    x = (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, unbiased=False, keepdim=True) + eps)
    return x * w["weight"] + w["bias"]


def run_norm2d(w: Weights, x: Tensor) -> Tensor:
    return run_norm(w, x.movedim(1, -1), 1e-6).movedim(-1, 1)


def run_linear(w: Weights, x: Tensor) -> Tensor:
    return x @ w["weight"].T + w["bias"]


def run_window(w: Weights, x: Tensor, heads: int, window: int) -> Tensor:
    """Attention of one window, tokens x channels, with a bias for each distance (rows, columns)."""
    n, width = x.shape
    row, column = torch.arange(n) // window, torch.arange(n) % window
    rows, columns = ((place[:, None] - place[None]).abs() for place in (row, column))
    bias = w["attention_biases"][:, rows * window + columns]
    each = width // heads
    qkv = run_linear(of(w, "qkv"), run_norm(of(w, "norm"), x)).reshape(n, heads, 3 * each)
    out = []
    for h in range(heads):
        q, k, v = qkv[:, h].split(each, dim=1)
        out.append(((q @ k.T) / math.sqrt(each) + bias[h]).softmax(-1) @ v)
    return run_linear(of(w, "proj"), torch.cat(out, dim=1))


def run_block(w: Weights, x: Tensor, heads: int, window: int) -> Tensor:
    """One image, channels x rows x columns; zeros fill windows that reach over the edge."""
    channels, height, width = x.shape
    padded = F.pad(x, (0, -width % window, 0, -height % window))
    attended = torch.empty_like(padded)
    for top in range(0, padded.shape[1], window):
        for left in range(0, padded.shape[2], window):
            part = padded[:, top : top + window, left : left + window]
            tokens = run_window(of(w, "attn"), part.reshape(channels, -1).T, heads, window)
            attended[:, top : top + window, left : left + window] = tokens.T.reshape(part.shape)
    x = x + attended[:, :height, :width]
    x = run_conv_bn(of(w, "local_conv"), x[None])[0]
    tokens = x.reshape(channels, -1).T
    inner = run_linear(of(w, "mlp.fc1"), run_norm(of(w, "mlp.norm"), tokens))
    return (tokens + run_linear(of(w, "mlp.fc2"), F.gelu(inner))).T.reshape(x.shape)


def run_encoder(weights: Weights, x: Tensor) -> Tensor:
    """1 x 3 x s x s to 1 x 256 x s/16 x s/16: the last merging keeps the resolution."""
    w = of(weights, "image_encoder")
    x = F.gelu(run_conv_bn(of(w, "patch_embed.seq.0"), x, 2))
    x = run_conv_bn(of(w, "patch_embed.seq.2"), x, 2)
    for i in range(4):
        for j in range(DEPTHS[i]):
            block = of(w, f"layers.{i}.blocks.{j}")
            if i == 0:
                x = F.gelu(x + run_three(block, x))
            else:
                x = run_block(block, x[0], HEADS[i], WINDOWS[i])[None]
        if i < 3:
            x = run_three(of(w, f"layers.{i}.downsample"), x, 1 if i == 2 else 2)
    x = run_norm2d(of(w, "neck.1"), F.conv2d(x, w["neck.0.weight"]))
    return run_norm2d(of(w, "neck.3"), F.conv2d(x, w["neck.2.weight"], padding=1))


def run_position(weights: Weights, xy: Tensor) -> Tensor:
    """Places from 0 to 1 to sines and cosines of random frequencies."""
    angles = (
        2 * math.pi * (2 * xy - 1) @ weights["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"]
    )
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def run_prompts(
    weights: Weights, side: int, points: list[tuple[float, float, int]], box: tuple[float, ...] | None
) -> Tensor:
    """Points (x, y, label) and a box in the square's pixels to tokens x 256; no box: one of padding."""
    w = of(weights, "prompt_encoder")
    tokens = [
        run_position(weights, (torch.tensor([x, y]) + 0.5) / side) + w[f"point_embeddings.{label}.weight"][0]
        for x, y, label in points
    ]
    if box is None:
        tokens.append(w["not_a_point_embed.weight"][0])
    else:
        for i in range(2):
            corner = (torch.tensor(box[2 * i : 2 * i + 2]) + 0.5) / side
            tokens.append(run_position(weights, corner) + w[f"point_embeddings.{2 + i}.weight"][0])
    return torch.stack(tokens)


def run_attention(w: Weights, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Eight heads, tokens x 256."""
    q, k, v = (run_linear(of(w, f"{name}_proj"), x) for name, x in (("q", q), ("k", k), ("v", v)))
    each = q.shape[1] // 8
    heads = [slice(h * each, (h + 1) * each) for h in range(8)]
    out = [((q[:, h] @ k[:, h].T) / math.sqrt(each)).softmax(-1) @ v[:, h] for h in heads]
    return run_linear(of(w, "out_proj"), torch.cat(out, dim=1))


def run_perceptron(w: Weights, x: Tensor) -> Tensor:
    for i in range(3):
        x = run_linear(of(w, f"layers.{i}"), x)
        x = x.relu() if i < 2 else x
    return x


def run_decoder(weights: Weights, embedding: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
    """256 x g x g and tokens x 256 to four masks of 4g x 4g and their scores: first the single one."""
    w = of(weights, "mask_decoder")
    grid = embedding.shape[-1]
    centres = (torch.arange(grid) + 0.5) / grid
    place = torch.stack([centres.repeat(grid), centres.repeat_interleave(grid)], dim=1)
    code = run_position(weights, place)
    start = torch.cat([w["iou_token.weight"], w["mask_tokens.weight"], prompts])
    image = (embedding + weights["prompt_encoder.no_mask_embed.weight"][0][:, None, None]).reshape(256, -1).T
    tokens = start
    for i in range(2):
        layer = of(w, f"transformer.layers.{i}")
        own = of(layer, "self_attn")
        if i == 0:
            tokens = run_attention(own, tokens, tokens, tokens)
        else:
            tokens = tokens + run_attention(own, tokens + start, tokens + start, tokens)
        tokens = run_norm(of(layer, "norm1"), tokens)
        across = of(layer, "cross_attn_token_to_image")
        tokens = tokens + run_attention(across, tokens + start, image + code, image)
        tokens = run_norm(of(layer, "norm2"), tokens)
        inner = run_linear(of(layer, "mlp.lin1"), tokens).relu()
        tokens = run_norm(of(layer, "norm3"), tokens + run_linear(of(layer, "mlp.lin2"), inner))
        back = of(layer, "cross_attn_image_to_token")
        image = image + run_attention(back, image + code, tokens + start, tokens)
        image = run_norm(of(layer, "norm4"), image)
    final = of(w, "transformer.final_attn_token_to_image")
    tokens = tokens + run_attention(final, tokens + start, image + code, image)
    tokens = run_norm(of(w, "transformer.norm_final_attn"), tokens)
    up = of(w, "output_upscaling")
    fine = F.conv_transpose2d(image.T.reshape(1, 256, grid, grid), up["0.weight"], up["0.bias"], stride=2)
    fine = F.gelu(run_norm2d(of(up, "1"), fine))
    fine = F.gelu(F.conv_transpose2d(fine, up["3.weight"], up["3.bias"], stride=2))[0]
    kernels = [run_perceptron(of(w, f"output_hypernetworks_mlps.{i}"), tokens[1 + i]) for i in range(4)]
    masks = torch.stack([(kernel[:, None, None] * fine).sum(0) for kernel in kernels])
    return masks, run_perceptron(of(w, "iou_prediction_head"), tokens[0])
