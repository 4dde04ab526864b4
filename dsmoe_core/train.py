"""Training: one visible loop, resumable at any moment."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from dsmoe_core.build import build
from dsmoe_core.checkpoint import (
    CARD,
    UNFINISHED,
    WEIGHTS,
    load_weights,
    need_text_encoder,
    optimizer_tensors,
    read_tensors,
    restore_optimizer,
    save_model,
    write_tensors,
)
from dsmoe_core.config import LossWeights, ModelConfig, TrainingConfig
from dsmoe_core.data.batches import Batch, TrainingSet
from dsmoe_core.data.square_cache import PictureCache, squares_of
from dsmoe_core.errors import DataError, ModelError
from dsmoe_core.losses import Boxes, Families, auxiliary_losses, detection_losses
from dsmoe_core.network import Read
from dsmoe_core.runtimes.protocol import as_images
from dsmoe_core.schema import LabelledPicture, Vocabulary
from dsmoe_core.text_encoders.protocol import TextEncoder
from dsmoe_core.tiling import training_views
from dsmoe_core.warm_start.checkpoint import load_start
from dsmoe_core.words import words_of

Progress = Callable[[int, int, dict[str, float]], None]
"""Called with (steps done, steps in all, smoothed losses by name)."""


@dataclass(frozen=True, slots=True)
class TrainingSummary:
    """How a run ended."""

    steps: int
    seconds: float
    losses: dict[str, float]


def fit(
    *,
    pictures: Sequence[LabelledPicture],
    vocabulary: Vocabulary,
    text_encoder: TextEncoder,
    model: ModelConfig,
    training: TrainingConfig,
    out: Path,
    start_from: Path | None = None,
    encoder_from: Path | None = None,
    cache: PictureCache | None = None,
    progress: Progress | None = None,
) -> TrainingSummary:
    """Train and leave ``model.safetensors`` and ``model.json`` in ``out``.

    Called again with the same arguments after a kill, it goes on from the last checkpoint; after the end, it
    does nothing.

    Args:
        pictures: labelled completely; a picture without annotations teaches what is no defect.
        start_from: folder of the model to go on from; fresh weights where there is none.
        encoder_from: file of the image encoder's first weights, where the others are fresh: MobileSAM's
            (mobile_sam/weights.py) or a warm start (warm_start/checkpoint.py), told apart by what is in it.
        cache: where letter-boxed pictures are kept from one training to the next; by default in memory only.

    Raises:
        DataError: there is no picture to learn from. ModelError: the model to start from does not fit.
    """
    if not pictures:
        raise DataError("the training set has no picture", "Label at least one picture before training.")
    start = start_from / WEIGHTS if start_from is not None else encoder_from
    fingerprint = _fingerprint(pictures, vocabulary, model, training, start, text_encoder.name)
    if (done := _finished(out, fingerprint)) is not None:
        return done
    out.mkdir(parents=True, exist_ok=True)
    fabric = Fabric(accelerator="auto", devices=1, precision=training.precision)
    torch.manual_seed(training.seed)
    network = build(model)
    if start_from is not None:
        need_text_encoder(start_from, text_encoder)
        load_weights(network, read_tensors(start_from / WEIGHTS)[0], str(start_from))
    elif encoder_from is not None:
        load_start(network, encoder_from)
    network = fabric.to_device(network).to(memory_format=torch.channels_last)
    average = copy.deepcopy(network).eval().requires_grad_(False)
    optimizer = adamw(network, training)
    step, spent = _restore(out / UNFINISHED, fingerprint, network, average, optimizer)
    words = words_of(vocabulary, text_encoder)
    views = training_views(pictures, model.tiles)
    data = TrainingSet(views, vocabulary, squares_of(model, cache), training)
    steps = math.ceil(training.pictures_seen / training.batch)
    wrapped, optimizer = fabric.setup(network, optimizer)
    wrapped.mark_forward_method("read")
    smoothed: dict[str, float] = {}
    began = saved = time.monotonic() - spent
    network.train()
    while step < steps:
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * schedule(step / steps, training.warmup)
        rng = np.random.default_rng([training.seed, 1 << 21, step])
        read = wrapped.read(words.draw(rng).to(fabric.device), words.inner.to(fabric.device))
        losses = _losses(wrapped, read, data.batch(step), words.families, model, training.losses)
        fabric.backward(sum(losses.values(), start=torch.zeros((), device=fabric.device)))
        fabric.clip_gradients(wrapped, optimizer, max_norm=10.0, error_if_nonfinite=False)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        _follow(average, network, training.ema, step)
        for name, value in losses.items():
            smoothed[name] = 0.95 * smoothed.get(name, value.item()) + 0.05 * value.item()
        if progress is not None:
            progress(step, steps, smoothed)
        if time.monotonic() - max(saved, began) > training.checkpoint_every_s and step < steps:
            saved = time.monotonic()
            _save_unfinished(out, fingerprint, network, average, optimizer, step, saved - began)
    summary = TrainingSummary(steps, time.monotonic() - began, smoothed)
    card = {
        "fingerprint": fingerprint,
        "training": training.model_dump(mode="json"),
        "text_encoder": text_encoder.name,
    }
    ended = {"steps": steps, "seconds": summary.seconds, "losses": smoothed}
    save_model(out, average, model, vocabulary, {**card, **ended})
    (out / UNFINISHED).unlink(missing_ok=True)
    return summary


def _losses(
    network: Any, read: Read, batch: Batch, families: Families, model: ModelConfig, weights: LossWeights
) -> dict[str, Tensor]:
    """All loss terms of one batch by name, weighted; ``network`` is what Fabric has wrapped."""
    device = read.classes.device
    images = as_images(torch.from_numpy(batch.pixels).to(device))
    output = network(images.contiguous(memory_format=torch.channels_last), read.steering, read.classes)
    truth = [
        Boxes(torch.from_numpy(b).to(device), torch.from_numpy(c).to(device))
        for b, c in zip(batch.boxes, batch.labels, strict=True)
    ]
    families = Families(families.child.to(device), families.parent.to(device))
    inner = network.alignment.anchors(read.inner) if output.aligned is not None else None
    return {
        **detection_losses(output, truth, weights, plain=not model.paper_losses),
        **auxiliary_losses(output, read, inner, families, truth, weights),
    }


def adamw(network: nn.Module, training: TrainingConfig) -> torch.optim.AdamW:
    """AdamW; norms, biases and scalars do not decay."""
    matrices = [p for p in network.parameters() if p.ndim > 1]
    vectors = [p for p in network.parameters() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": training.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=training.learning_rate)


def schedule(share: float, warmup: float) -> float:
    """Factor on the learning rate: linear up, then a cosine down to a hundredth."""
    if share < warmup:
        return (share + 1e-3) / (warmup + 1e-3)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (share - warmup) / (1 - warmup)))


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Exponential moving average of weights and statistics, quick at the start."""
    keep = min(decay, (1 + step) / (10 + step))
    for mean, now in zip(_state(average), _state(network), strict=True):
        if mean.dtype.is_floating_point:
            mean.lerp_(now.to(mean.dtype), 1 - keep)
        else:
            mean.copy_(now)


def _state(network: nn.Module) -> Iterator[Tensor]:
    yield from network.parameters()
    yield from network.buffers()


def _fingerprint(
    pictures: Sequence[LabelledPicture],
    vocabulary: Vocabulary,
    model: ModelConfig,
    training: TrainingConfig,
    start: Path | None,
    encoder: str,
) -> str:
    """Hash of everything that decides what comes out of a run."""
    labels = sorted((p.picture.key, [(*a.box.corners, a.label) for a in p.annotations]) for p in pictures)
    texts = [
        (c.name, c.description, c.parent, c.paraphrases) for c in (*vocabulary.classes, *vocabulary.inner)
    ]
    begun = hashlib.sha256(start.read_bytes()).hexdigest() if start is not None and start.is_file() else None
    parts = [labels, texts, model.model_dump(mode="json"), training.model_dump(mode="json"), begun, encoder]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _finished(out: Path, fingerprint: str) -> TrainingSummary | None:
    try:
        card = json.loads((out / CARD).read_text("utf-8"))
        if card["fingerprint"] != fingerprint or not (out / WEIGHTS).is_file():
            return None
        return TrainingSummary(card["steps"], card["seconds"], card["losses"])
    except (OSError, ValueError, KeyError):
        return None


def _save_unfinished(
    out: Path,
    fingerprint: str,
    network: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    seconds: float,
) -> None:
    tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.state_dict().items()}
    tensors |= optimizer_tensors(optimizer)
    write_tensors(
        out / UNFINISHED, tensors, {"fingerprint": fingerprint, "step": str(step), "seconds": str(seconds)}
    )


def _restore(
    path: Path, fingerprint: str, network: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, float]:
    """Go on where a killed run of the same fingerprint stopped: (steps done, seconds spent)."""
    if not path.is_file():
        return 0, 0.0
    try:
        tensors, metadata = read_tensors(path)
    except ModelError:
        return 0, 0.0
    if metadata.get("fingerprint") != fingerprint:
        return 0, 0.0
    for prefix, module in (("network.", network), ("average.", average)):
        load_weights(
            module, {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}, str(path)
        )
    restore_optimizer(optimizer, tensors)
    return int(metadata["step"]), float(metadata["seconds"])
