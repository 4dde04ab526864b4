"""Training loop of the image encoder on unlabelled images; the objective is masked images or distillation.

Objectives are modules that contain the backbone of stage 3 and return a loss: simmim.py predicts masked
pixels, feature_distillation.py predicts the features of a trained backbone. Random numbers are functions of
seed and step, so a run that was killed resumes as an uninterrupted one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
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
from dsmoe_core.tiling import image_views
from dsmoe_core.training.distributed import ProcessGroup
from dsmoe_core.training.length import LengthState, TrainingLength
from dsmoe_core.training.optimizer import build_optimizer, set_learning_rate
from dsmoe_core.training.precision import training_precision
from dsmoe_core.warm_start.checkpoint import load_initial_encoder

PretrainingProgress = Callable[[int, int, dict[str, float]], None]
"""Called with (steps done, steps in total, values by name): the smoothed loss, and ``seconds_left``."""
_PLACEHOLDER = Vocabulary((ClassText("nothing", "nothing"),))  # unlabelled images need no class


@runtime_checkable
class PretrainingObjective(Protocol):
    """What an image encoder is pretrained for."""

    loss_name: str
    """Name of the loss in progress reports."""
    module: nn.Module
    """Contains the backbone; called with a batch and the values of ``step_inputs``, it returns the loss."""

    def step_inputs(self, images: int, step: int) -> tuple[Tensor, ...]:
        """Further inputs of the module in this step, for a batch of this many images."""
        ...


def pretrain_encoder(
    make_objective: Callable[[nn.Module], PretrainingObjective],
    *,
    images: Sequence[ImageRecord],
    model: ModelConfig,
    training: TrainingConfig,
    out: Path,
    encoder_from: Path | None = None,
    cache: CacheConfig | None = None,
    progress: PretrainingProgress | None = None,
) -> nn.Module:
    """Pretrain the image encoder on unlabelled images; the rest of the network keeps its initial weights.

    Called again with the same arguments after a kill, it resumes at the last checkpoint in ``out``.

    Args:
        make_objective: makes the objective for a network whose image encoder is pretrained.
        images: cut into the tiles of the model, if it has any; all of them, because without labels no tile is
            known to be empty.
        training: its length is ``images_seen``, or ``minutes``.
        out: folder of the checkpoint, of this configuration alone.
        encoder_from: file of the image encoder's initial weights; None: random weights.
        cache: cache of letter-boxed images; None: they are kept in memory.
        progress: called after every step.

    Returns:
        The network with the pretrained image encoder.

    Raises:
        DataError: there is no image.
        ModelError: a weight is not finite.
    """
    torch.manual_seed(training.seed)
    network = build(model)
    if encoder_from is not None:
        load_initial_encoder(network, encoder_from)
    objective = make_objective(network)
    _train(objective, images, model, training, out, cache, progress)
    return network


def _train(
    objective: PretrainingObjective,
    images: Sequence[ImageRecord],
    model: ModelConfig,
    training: TrainingConfig,
    out: Path,
    cache: CacheConfig | None,
    progress: PretrainingProgress | None,
) -> None:
    """Train the module of an objective, in place; arguments as in ``pretrain_encoder``."""
    if not images:
        raise DataError("there is no image to pretrain on", "Give a folder with images.")
    out.mkdir(parents=True, exist_ok=True)
    fabric = Fabric(accelerator="auto", devices=1, precision=training_precision(training))
    module = fabric.to_device(objective.module).to(memory_format=torch.channels_last)
    optimizer = build_optimizer(module, training)
    tiles = model.tiles
    views = images if tiles is None else [view for image in images for view in image_views(image, tiles)]
    unlabelled = [LabelledImage(view, ()) for view in views]
    data = TrainingSet(unlabelled, _PLACEHOLDER, letterbox_reader(model, cache), training)
    step, seconds, state = _restore(out / CHECKPOINT, module, optimizer)
    wrapped, optimizer = fabric.setup(module, optimizer)
    module.train()
    length = TrainingLength(training, state, ProcessGroup(), seconds_before=seconds)
    smoothed, saved = float("nan"), time.monotonic()
    while not length.is_done(step):
        set_learning_rate(optimizer, length.learning_rate(step))
        batch = to_network_input(torch.from_numpy(data.batch(step).pixels).to(fabric.device))
        inputs = [value.to(fabric.device) for value in objective.step_inputs(len(batch), step)]
        loss: Float[Tensor, ""] = wrapped(batch.contiguous(memory_format=torch.channels_last), *inputs)
        fabric.backward(loss)
        fabric.clip_gradients(wrapped, optimizer, max_norm=5.0, error_if_nonfinite=False)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        length.update(step)
        smoothed = loss.item() if smoothed != smoothed else 0.95 * smoothed + 0.05 * loss.item()
        if progress is not None:
            steps, times = length.forecast(step)
            progress(step, steps, {objective.loss_name: smoothed, **times})
        if time.monotonic() - saved > training.checkpoint_every_s or length.is_done(step):
            saved = time.monotonic()
            _save(out / CHECKPOINT, module, optimizer, step, length)
    if not all(v.isfinite().all() for v in module.state_dict().values()):
        raise ModelError(
            "the pretraining diverged: a weight is not finite", "Pretrain with other images or another seed."
        )


def _save(
    path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, step: int, length: TrainingLength
) -> None:
    tensors = {f"network.{k}": v for k, v in module.state_dict().items()} | optimizer_tensors(optimizer)
    metadata = {
        "step": str(step),
        "seconds": str(length.seconds),
        "length": json.dumps(length.state.to_dict()),
    }
    write_tensors(path, tensors, metadata)


def _restore(
    path: Path, module: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, float, LengthState]:
    """Load the checkpoint of a killed run; returns its step, the time spent, and the state of its length.

    The folder belongs to one configuration only, so the checkpoint is not checked against it.
    """
    try:
        tensors, metadata = read_tensors(path)
    except ModelError:
        return 0, 0.0, LengthState()
    weights = {k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")}
    load_weights(module, weights, str(path))
    restore_optimizer(optimizer, tensors)
    state = LengthState.from_dict(json.loads(metadata["length"]))
    return int(metadata["step"]), float(metadata["seconds"]), state
