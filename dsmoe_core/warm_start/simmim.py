"""Self-supervised pretraining of the image encoder by masked image modelling (SimMIM).

SimMIM (Xie et al., CVPR 2022, arXiv:2111.09886): random patches of 32 x 32 pixels, 60 % of all, are masked;
one linear layer on the encoder's last map predicts their raw pixels; the loss is the mean absolute difference
over masked pixels. Unlike MAE, which drops tokens, it works with hierarchical encoders. It suits two cores:
self-distillation needs two networks and two views per image, SimMIM needs one of each and works with small
batches. SimMIM masks embedded patches. We replace the pixels by a learned colour, because TinyViT starts with
overlapping convolutions, which would leak masked pixels into their neighbours.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from lightning.fabric import Fabric
from torch import Tensor, nn

from dsmoe_core.build import build
from dsmoe_core.checkpoint import (
    CHECKPOINT,
    load_weights,
    optimizer_tensors,
    read_tensors,
    restore_optimizer,
    write_tensors,
)
from dsmoe_core.config import ModelConfig, TrainingConfig
from dsmoe_core.data.batches import TrainingSet
from dsmoe_core.data.letterbox_cache import CacheConfig, letterbox_reader
from dsmoe_core.errors import DataError, ModelError
from dsmoe_core.runtimes.protocol import to_network_input
from dsmoe_core.schema import ClassText, ImageRecord, LabelledImage, Vocabulary
from dsmoe_core.training.optimizer import build_optimizer, set_learning_rate
from dsmoe_core.training.precision import training_precision

PATCH_SIZE = 32
MASK_RATIO = 0.6
_PLACEHOLDER = Vocabulary((ClassText("nothing", "nothing"),))  # unlabelled images need no class
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


def fit_simmim(
    *,
    images: Sequence[ImageRecord],
    model: ModelConfig,
    training: TrainingConfig,
    out: Path,
    cache: CacheConfig | None = None,
    progress: Callable[[int, int, dict[str, float]], None] | None = None,
) -> nn.Module:
    """Pretrain the image encoder on unlabelled images; the rest of the network keeps its initial weights.

    Called again with the same arguments after a kill, it resumes at the last checkpoint in ``out``.

    Args:
        out: folder of the checkpoint.
        cache: cache of letter-boxed images; None: they are kept in memory.
        progress: called after every step with (steps done, steps in total, smoothed loss by name).

    Returns:
        The network with the pretrained image encoder.

    Raises:
        DataError: there is no image.
        ModelError: a weight is not finite.
    """
    if not images:
        raise DataError("there is no image to pretrain on", "Give a folder with images.")
    out.mkdir(parents=True, exist_ok=True)
    fabric = Fabric(accelerator="auto", devices=1, precision=training_precision(training))
    torch.manual_seed(training.seed)
    network = build(model)
    simmim = MaskedImageModel(backbone=network.image_encoder.backbone, width=model.encoder_widths[-1])
    simmim = fabric.to_device(simmim).to(memory_format=torch.channels_last)
    optimizer = build_optimizer(simmim, training)
    unlabelled = [LabelledImage(image, ()) for image in images]
    data = TrainingSet(unlabelled, _PLACEHOLDER, letterbox_reader(model, cache), training)
    steps = ceil(training.images_seen / training.batch)
    step = _restore(out / CHECKPOINT, simmim, optimizer)
    wrapped, optimizer = fabric.setup(simmim, optimizer)
    simmim.train()
    smoothed, saved = float("nan"), time.monotonic()
    while step < steps:
        set_learning_rate(optimizer, training, step / steps)
        batch = to_network_input(torch.from_numpy(data.batch(step).pixels).to(fabric.device))
        mask = random_patch_mask(len(batch), model.image_px // PATCH_SIZE, training.seed, step)
        loss = wrapped(batch.contiguous(memory_format=torch.channels_last), mask.to(fabric.device))
        fabric.backward(loss)
        fabric.clip_gradients(wrapped, optimizer, max_norm=5.0, error_if_nonfinite=False)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        smoothed = loss.item() if smoothed != smoothed else 0.95 * smoothed + 0.05 * loss.item()
        if progress is not None:
            progress(step, steps, {"reconstruction": smoothed})
        if time.monotonic() - saved > training.checkpoint_every_s or step == steps:
            saved = time.monotonic()
            _save(out / CHECKPOINT, simmim, optimizer, step)
    _check_finite(network)
    return network


def _check_finite(network: nn.Module) -> None:
    if not all(v.isfinite().all() for v in network.state_dict().values()):
        raise ModelError(
            "the pretraining diverged: a weight is not finite", "Pretrain with other images or another seed."
        )


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


def _save(path: Path, simmim: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    tensors = {f"network.{k}": v for k, v in simmim.state_dict().items()} | optimizer_tensors(optimizer)
    write_tensors(path, tensors, {"step": str(step)})


def _restore(path: Path, simmim: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load the checkpoint of a killed run and return its step; 0 without one.

    The folder belongs to one configuration only, so the checkpoint is not checked against it.
    """
    try:
        tensors, metadata = read_tensors(path)
    except ModelError:
        return 0
    weights = {k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")}
    load_weights(simmim, weights, str(path))
    restore_optimizer(optimizer, tensors)
    return int(metadata["step"])
