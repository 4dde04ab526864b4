"""Learning from images without labels: hide most of each, and let the encoder paint what is hidden.

SimMIM (Xie et al., CVPR 2022, arXiv:2111.09886): random squares of 32 pixels are hidden, 60 % of all; one
linear layer on the encoder's last map predicts their raw pixels; the loss is the mean absolute difference
over hidden pixels. It fits hierarchical encoders, which MAE's dropping of tokens does not, and two cores: one
network and one view an image, where self-distillation needs two of each, and batches as small as you like.
SimMIM hides embedded patches. We hide pixels, by a learned colour: TinyViT begins with overlapping
convolutions, which would carry what is hidden over to its neighbours.
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
from dsmoe_core.schema import ClassText, ImageRecord, LabelledImage, Vocabulary
from dsmoe_core.training.optimizer import build_optimizer, set_learning_rate

PATCH = 32
HIDDEN = 0.6
_NOTHING = Vocabulary((ClassText("nothing", "nothing"),))  # images without labels need no class
_MASKS = 1 << 23  # keeps the masks' random numbers apart from those of the batches


class MaskedImageModel(nn.Module):
    """An encoder, the colour that hides, and the layer that paints.

    Args:
        backbone: as stage 3 has it; its last map has ``width`` channels and stride PATCH.
    """

    def __init__(self, *, backbone: nn.Module, width: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.colour = nn.Parameter(torch.zeros(3))
        self.paint = nn.Conv2d(width, 3 * PATCH**2, 1)

    def forward(self, images: Float[Tensor, "b 3 H W"], hidden: Bool[Tensor, "b h w"]) -> Float[Tensor, ""]:
        """The mean absolute difference over hidden pixels; ``images`` are RGB in [0, 1], h = H / PATCH."""
        cover = hidden[:, None].repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)
        shown = torch.where(cover, self.colour[:, None, None].to(images.dtype), images - 0.5)
        deepest = self.backbone.forward_intermediates(shown, intermediates_only=True)[-1]  # type: ignore[operator]
        painted = F.pixel_shuffle(self.paint(deepest), PATCH) + 0.5
        return ((painted - images).abs() * cover).sum() / (3 * cover.sum()).clamp(min=1)


def fit_simmim(
    *,
    images: Sequence[ImageRecord],
    model: ModelConfig,
    training: TrainingConfig,
    out: Path,
    cache: CacheConfig | None = None,
    progress: Callable[[int, int, dict[str, float]], None] | None = None,
) -> nn.Module:
    """Train the image encoder of this shape on images without labels; the rest of the network stays fresh.

    Called again with the same arguments after a kill, it goes on from the last checkpoint in ``out``.

    Args:
        progress: called with (steps done, steps in all, smoothed loss by name).

    Raises:
        DataError: there is no image. ModelError: the loss is not finite.
    """
    if not images:
        raise DataError("there is no image to learn from", "Name a folder with images.")
    out.mkdir(parents=True, exist_ok=True)
    fabric = Fabric(accelerator="auto", devices=1, precision=training.precision)
    torch.manual_seed(training.seed)
    network = build(model)
    masked = MaskedImageModel(backbone=network.image_encoder.backbone, width=model.encoder_widths[-1])
    masked = fabric.to_device(masked).to(memory_format=torch.channels_last)
    optimizer = build_optimizer(masked, training)
    unlabelled = [LabelledImage(image, ()) for image in images]
    data = TrainingSet(unlabelled, _NOTHING, letterbox_reader(model, cache), training)
    steps = ceil(training.images_seen / training.batch)
    step = _restore(out / CHECKPOINT, masked, optimizer)
    wrapped, optimizer = fabric.setup(masked, optimizer)
    masked.train()
    smoothed, saved = float("nan"), time.monotonic()
    while step < steps:
        set_learning_rate(optimizer, training, step / steps)
        shown = (
            torch.from_numpy(data.batch(step).pixels).to(fabric.device).permute(0, 3, 1, 2).float().div(255)
        )
        hidden = random_patch_mask(len(shown), model.image_px // PATCH, training.seed, step).to(fabric.device)
        loss = wrapped(shown.contiguous(memory_format=torch.channels_last), hidden)
        fabric.backward(loss)
        fabric.clip_gradients(wrapped, optimizer, max_norm=5.0, error_if_nonfinite=False)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        smoothed = loss.item() if smoothed != smoothed else 0.95 * smoothed + 0.05 * loss.item()
        if progress is not None:
            progress(step, steps, {"hidden": smoothed})
        if time.monotonic() - saved > training.checkpoint_every_s or step == steps:
            saved = time.monotonic()
            _save(out / CHECKPOINT, masked, optimizer, step)
    if not all(v.isfinite().all() for v in network.state_dict().values()):
        raise ModelError("learning from masked images diverged", "Pretrain with other images or a seed.")
    return network


def random_patch_mask(count: int, cells: int, seed: int, step: int) -> Bool[Tensor, "b h w"]:
    """Which squares are hidden: the same share of every image, others at each step."""
    rng = np.random.default_rng([seed, _MASKS, step])
    order = rng.random((count, cells * cells)).argsort(1).argsort(1)
    return torch.from_numpy((order < round(HIDDEN * cells * cells)).reshape(count, cells, cells))


def _save(path: Path, masked: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    tensors = {f"network.{k}": v for k, v in masked.state_dict().items()} | optimizer_tensors(optimizer)
    write_tensors(path, tensors, {"step": str(step)})


def _restore(path: Path, masked: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """The steps done by a run that was killed; the folder is of one plan only, so they are ours."""
    try:
        tensors, metadata = read_tensors(path)
    except ModelError:
        return 0
    own = {k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")}
    load_weights(masked, own, str(path))
    restore_optimizer(optimizer, tensors)
    return int(metadata["step"])
