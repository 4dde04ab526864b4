"""Training: one visible loop, resumable at any moment."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from lightning.fabric import Fabric
from torch import Tensor

from dsmoe_core.ablation import AblatedDSMoE
from dsmoe_core.build import build
from dsmoe_core.checkpoint import CHECKPOINT, WEIGHTS, check_text_encoder, load_weights, read_tensors
from dsmoe_core.config import ModelConfig, TrainingConfig
from dsmoe_core.data.batches import TrainingSet
from dsmoe_core.data.letterbox_cache import CacheConfig, letterbox_reader
from dsmoe_core.errors import DataError, ModelError, SettingsError
from dsmoe_core.network import DSMoE
from dsmoe_core.schema import LabelledImage, LabelledSet, Vocabulary
from dsmoe_core.text_embeddings import embed_vocabulary
from dsmoe_core.text_encoders.protocol import TextEncoder
from dsmoe_core.tiling import training_views
from dsmoe_core.training.distributed import ProcessGroup
from dsmoe_core.training.frozen_encoder import FrozenEncoder, fixed_views
from dsmoe_core.training.microbatch import MicroBatchFinder
from dsmoe_core.training.objective import Objective
from dsmoe_core.training.optimizer import build_optimizer, follow, set_learning_rate
from dsmoe_core.training.prefetch import prefetch, prefetch_threads
from dsmoe_core.training.run import TrainingRun, TrainingSummary, fingerprint
from dsmoe_core.training.step_sampler import StepSampler
from dsmoe_core.training.synchronised import synchronise
from dsmoe_core.warm_start.checkpoint import load_initial_encoder

Progress = Callable[[int, int, dict[str, float]], None]
"""Called with (steps done, steps in all, figures by name): the smoothed losses, and of the last step
``learning_rate`` and ``gradient_norm``, before clipping."""
MAX_GRADIENT = 10.0
"""Gradients are clipped to this norm."""
_log = logging.getLogger(__name__)


def fit(
    *,
    images: Sequence[LabelledImage],
    vocabulary: Vocabulary,
    text_encoder: TextEncoder,
    model: ModelConfig,
    training: TrainingConfig,
    out: Path,
    start_from: Path | None = None,
    encoder_from: Path | None = None,
    cache: CacheConfig | None = None,
    extra_sets: Sequence[LabelledSet] = (),
    progress: Progress | None = None,
) -> TrainingSummary:
    """Train and leave ``model.safetensors`` and ``model.json`` in ``out``.

    Called again with the same arguments after a kill, it goes on from the last checkpoint; after the end, it
    does nothing. Called by every process of those that torchrun started (``process_group``), they train
    together, and the first one writes.

    Args:
        images: labelled completely; an image without annotations teaches what is no defect.
        start_from: folder of the model to go on from; fresh weights where there is none.
        encoder_from: file of the image encoder's first weights, where the others are fresh: MobileSAM's
            (mobile_sam/weights.py) or a warm start (warm_start/checkpoint.py), told apart by what is in it.
        cache: where letter-boxed images are kept from one training to the next, and the features of a
            frozen encoder; by default in memory only.
        also: other labelled sets to learn from along with it, in their own words, so that words have to be
            told apart that no single set has side by side; ``images_seen`` counts all sets' images.
            The model's vocabulary is ``vocabulary`` alone.

    Raises:
        DataError: there is no image to learn from, or in one of the sets. SettingsError: there are several
            sets for a network without words. ModelError: the model to start from does not fit, or the
            training diverged.
        PrerequisiteError: one image does not fit into memory, or the disk is full.
    """
    sets = _checked([LabelledSet(images, vocabulary), *extra_sets], model)
    processes = ProcessGroup.present()
    start = start_from / WEIGHTS if start_from is not None else encoder_from
    run = TrainingRun(out, fingerprint(sets, model, training, start, text_encoder.name))
    if (done := run.finished()) is not None:
        (out / CHECKPOINT).unlink(missing_ok=True)  # of a run that was killed right after its end
        return done
    out.mkdir(parents=True, exist_ok=True)
    fabric = Fabric(accelerator="auto", devices=processes.devices, precision=training.precision)
    network = _first_weights(model, training, text_encoder, start_from, encoder_from)
    network = fabric.to_device(network).to(memory_format=torch.channels_last).train()
    frozen = _frozen(fabric, network, training, start, cache)
    if frozen is not None:
        training = fixed_views(training)
    if processes.count > 1:
        synchronise(network)
    average = copy.deepcopy(network).eval().requires_grad_(False)
    optimizer = build_optimizer(network, training)
    reached = run.restore(network, average, optimizer, processes.micro_batch(training))
    processes.need_the_same(reached.step)
    squares = letterbox_reader(model, cache)
    questions = StepSampler(
        [
            (
                TrainingSet(training_views(shown, model.tiles), book, squares, training),
                embed_vocabulary(book, text_encoder),
            )
            for shown, book in sets
        ],
        training,
    )
    wrapped, optimizer = fabric.setup(network, optimizer)
    wrapped.mark_forward_method("encode_classes")
    plain = not model.paper_losses
    objective = Objective(fabric, wrapped, training.losses, plain, processes, frozen)
    memory = MicroBatchFinder(network, reached.micro_batch, processes)
    steps = math.ceil(training.images_seen / training.batch)
    began = saved = time.monotonic() - reached.seconds
    asked = prefetch(questions.of, range(reached.step, steps), prefetch_threads(fabric.device))
    for step, question in enumerate(asked, start=reached.step):
        rate = set_learning_rate(optimizer, training, step / steps)
        losses = memory.run(partial(objective.gradients, question))
        norm = fabric.clip_gradients(wrapped, optimizer, max_norm=MAX_GRADIENT, error_if_nonfinite=False)
        _refuse_diverged(step, losses | {"gradient norm": norm}, training.learning_rate)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        follow(average, network, training.ema, step + 1)
        reached.advance(losses, memory.micro_batch, time.monotonic() - began)
        if progress is not None and processes.first:
            figures = {"learning_rate": rate, "gradient_norm": float(norm)}
            progress(reached.step, steps, reached.losses | figures)
        if time.monotonic() - max(saved, began) > training.checkpoint_every_s and reached.step < steps:
            saved = time.monotonic()
            if processes.first:
                run.save(network, average, optimizer, reached)
    if processes.first:
        card = {"training": training.model_dump(mode="json"), "text_encoder": text_encoder.name}
        run.finish(average, model, vocabulary, reached, card)
    processes.wait()
    return reached.summary()


def _checked(sets: list[LabelledSet], model: ModelConfig) -> list[LabelledSet]:
    """The sets, where something can be learned from each."""
    for number, one in enumerate(sets, start=1):
        if not one.images:
            which = f"set {number} of {len(sets)}" if len(sets) > 1 else "the training set"
            raise DataError(f"{which} has no image", "Label at least one image before training.")
    if len(sets) > 1 and not model.uses_text:
        raise SettingsError(
            f"{len(sets)} sets are to be learned together by row {model.ablation}, which reads no words and "
            "would take the first class of each for the same",
            "Take a row from B on, or one set.",
        )
    return sets


def _first_weights(
    model: ModelConfig,
    training: TrainingConfig,
    text_encoder: TextEncoder,
    start_from: Path | None,
    encoder_from: Path | None,
) -> DSMoE | AblatedDSMoE:
    torch.manual_seed(training.seed)
    network = build(model)
    if start_from is not None:
        check_text_encoder(start_from, text_encoder)
        load_weights(network, read_tensors(start_from / WEIGHTS)[0], str(start_from))
    elif encoder_from is not None:
        load_initial_encoder(network, encoder_from)
    return network


def _refuse_diverged(step: int, figures: Mapping[str, Tensor], learning_rate: float) -> None:
    """Stop before the weights and the checkpoint are spoiled; no precision of ours scales its losses.

    Raises:
        ModelError: a figure is not finite.
    """
    if torch.stack(list(figures.values())).isfinite().all():  # one question to a GPU, not one a figure
        return
    name, value = next((n, float(v)) for n, v in figures.items() if not torch.isfinite(v))
    raise ModelError(
        f"the training diverged in step {step + 1}: its {name} is {value}; expected a finite number",
        f"Lower detector.training.learning_rate, which is {learning_rate:g}, and train again.",
    )


def _frozen(
    fabric: Fabric,
    network: DSMoE | AblatedDSMoE,
    training: TrainingConfig,
    start: Path | None,
    cache: CacheConfig | None,
) -> FrozenEncoder | None:
    """The image encoder, where it is to stay as it is; a fresh one has to learn in any case."""
    if training.encoder == "train":
        return None
    if start is None:
        _log.warning("the image encoder is not frozen: there is no trained one to start from")
        return None
    return FrozenEncoder(fabric, network, training.precision, cache)
