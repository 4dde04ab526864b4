"""Training loop of the detector, resumable after a kill at any moment."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from dsmoe_core.ablation import AblatedDSMoE
from dsmoe_core.allocator import keep_freed_memory
from dsmoe_core.build import build
from dsmoe_core.checkpoint import WEIGHTS, check_text_encoder, load_weights, read_tensors
from dsmoe_core.config import ModelConfig, TrainingConfig
from dsmoe_core.data.augment.choice import cacheable_augmentations
from dsmoe_core.data.batches import TrainingSet
from dsmoe_core.data.letterbox_cache import CacheConfig, letterbox_reader
from dsmoe_core.errors import DataError, ModelError, SettingsError
from dsmoe_core.network import DSMoE
from dsmoe_core.schema import LabelledImage, LabelledSet, Vocabulary
from dsmoe_core.text_embeddings import embed_vocabulary
from dsmoe_core.text_encoders.protocol import TextEncoder
from dsmoe_core.tiling import training_views
from dsmoe_core.training.batch_renormalisation import renormalise
from dsmoe_core.training.compatibility import require_compatible
from dsmoe_core.training.distributed import ProcessGroup
from dsmoe_core.training.early_stopping import HeldOutAccuracy, hold_out, known_images
from dsmoe_core.training.frozen_encoder import FrozenEncoder
from dsmoe_core.training.length import TrainingLength, check_schedule
from dsmoe_core.training.microbatch import MicroBatchFinder
from dsmoe_core.training.objective import Objective
from dsmoe_core.training.optimizer import WeightAverage, build_optimizer, set_learning_rate
from dsmoe_core.training.precision import training_precision
from dsmoe_core.training.prefetch import prefetch, prefetch_threads
from dsmoe_core.training.run import TrainingRun, TrainingSummary, fingerprint
from dsmoe_core.training.step_sampler import StepSampler
from dsmoe_core.training.synchronised import synchronise
from dsmoe_core.training.teacher import Teacher, check_teacher
from dsmoe_core.warm_start.checkpoint import load_initial_encoder

Progress = Callable[[int, int, dict[str, float]], None]
"""Called with (steps done, steps in total, metrics by name): the smoothed losses, ``learning_rate`` and
``gradient_norm`` (before clipping) of the last step, and ``seconds_left`` from the second step on. With a
time limit the steps in total are a forecast."""
MAX_GRADIENT_NORM = 10.0
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
    teacher: Path | None = None,
    cache: CacheConfig | None = None,
    extra_sets: Sequence[LabelledSet] = (),
    intensity_max: int | None = None,
    progress: Progress | None = None,
) -> TrainingSummary:
    """Train a detector and write ``model.safetensors`` and ``model.json`` to ``out``.

    Called again with the same arguments after a kill, it resumes at the last checkpoint; after the end, it
    does nothing. When torchrun starts several processes, each of them calls it inside ``process_group``; they
    train together and the main process writes.

    Args:
        images: completely labelled images; an image without annotations shows no defect.
        vocabulary: classes of the images; stored with the model.
        text_encoder: embeds the class descriptions.
        model: architecture.
        training: training settings.
        out: output folder.
        start_from: folder of the model to fine-tune; None: start with fresh weights.
        encoder_from: file of the image encoder's initial weights if the others are fresh.
        teacher: folder of a model to learn from as well (knowledge_distillation.py); None: the labels only.
        cache: of letter-boxed images and of the features of a frozen encoder; None: images are in memory.
        extra_sets: other labelled sets to train on as well, with their own vocabularies.
        intensity_max: value that is white in images of more than 8 bits; stored with the model. None: none.
        progress: called after every step, in the main process.

    Raises:
        DataError: a set has no image.
        SettingsError: several sets, but the network reads no text; or the training settings do not fit.
        ModelError: the model to start from or the teacher does not fit, or the training diverged.
        PrerequisiteError: a single image does not fit into memory, or the disk is full.
    """
    check_schedule(training)
    require_compatible(model, training)
    sets = _check_sets([LabelledSet(images, vocabulary), *extra_sets], model, teacher)
    processes = ProcessGroup.current()
    start = start_from / WEIGHTS if start_from is not None else encoder_from
    run = TrainingRun(out, fingerprint(sets, model, training, start, text_encoder.name, teacher))
    if (summary := run.finished()) is not None:
        return summary
    out.mkdir(parents=True, exist_ok=True)
    training = training.model_copy(update={"precision": training_precision(training)})
    fabric = _fabric(processes, training)
    network = _initial_network(model, training, text_encoder, start_from, encoder_from)
    network = fabric.to_device(network).to(memory_format=torch.channels_last).train()
    frozen, training = _freeze_encoder(fabric, network, training, start, cache)
    _prepare_norms(network, processes, several_sets=len(sets) > 1)
    average = copy.deepcopy(network).eval().requires_grad_(False)
    optimizer = build_optimizer(network, training)
    state = run.restore(network, average, optimizer, processes.micro_batch(training))
    processes.require_same_step(state.step)
    sets, accuracy, state.held_out, state.trained_on = _hold_out(
        sets, start_from, average, model, training, text_encoder, out, cache
    )
    sampler = _step_sampler(sets, model, training, text_encoder, cache)
    wrapped, optimizer = fabric.setup(network, optimizer)
    wrapped.mark_forward_method("encode_classes")
    source = Teacher.load(teacher, sets, text_encoder, fabric) if teacher is not None else None
    objective = Objective(fabric, wrapped, training.losses, not model.paper_losses, processes, frozen, source)
    finder = MicroBatchFinder(network, state.micro_batch, processes)
    moving_average = WeightAverage(average, network, training.ema)
    length = TrainingLength(training, state.length, processes, accuracy, seconds_before=state.seconds)
    saved = time.monotonic()
    data = prefetch(sampler.sample, range(state.step, length.last_step), prefetch_threads(fabric.device))
    for index, step in enumerate(data, start=state.step):
        rate = set_learning_rate(optimizer, length.learning_rate(index))
        losses = finder.run(partial(objective.accumulate_gradients, step))
        norm = fabric.clip_gradients(wrapped, optimizer, max_norm=MAX_GRADIENT_NORM, error_if_nonfinite=False)
        _require_finite(index, losses | {"gradient norm": norm}, training.learning_rate)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        moving_average.update(index + 1)
        length.update(index + 1)
        state.record_step(losses, finder.micro_batch, length.seconds)
        if progress is not None and processes.is_main:
            steps, times = length.forecast(state.step)
            metrics = {"learning_rate": rate, "gradient_norm": float(norm), **times}
            progress(state.step, steps, state.losses | metrics)
        if length.is_done(state.step):
            break
        if processes.is_main and time.monotonic() - saved > training.checkpoint_every_s:
            saved = time.monotonic()
            run.save(network, average, optimizer, state)
    data.close()
    if processes.is_main:
        card = {"training": training.model_dump(mode="json"), "text_encoder": text_encoder.name}
        run.finish(average, model, vocabulary, state, card | {"intensity_max": intensity_max})
    processes.barrier()
    return state.summary()


def _check_sets(sets: list[LabelledSet], model: ModelConfig, teacher: Path | None) -> list[LabelledSet]:
    """Return the sets if the network can be trained on all of them, and learn from the teacher."""
    for number, (images, _) in enumerate(sets, start=1):
        if not images:
            name = f"set {number} of {len(sets)}" if len(sets) > 1 else "the training set"
            raise DataError(f"{name} has no image", "Label at least one image before training.")
    if len(sets) > 1 and not model.uses_text:
        raise SettingsError(
            f"there are {len(sets)} training sets, but ablation row {model.ablation} reads no text and "
            "identifies classes by their number, which differs between the sets",
            "Use one of the rows B to F, or one set.",
        )
    if teacher is not None:
        check_teacher(teacher, model, sets)
    return sets


def _initial_network(
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


def _hold_out(
    sets: list[LabelledSet],
    start_from: Path | None,
    average: DSMoE | AblatedDSMoE,
    model: ModelConfig,
    training: TrainingConfig,
    text_encoder: TextEncoder,
    out: Path,
    cache: CacheConfig | None,
) -> tuple[list[LabelledSet], HeldOutAccuracy | None, tuple[str, ...], tuple[str, ...]]:
    """Split the images for early stopping off the first set, if it is on.

    Returns:
        The sets to train on, the accuracy of the averaged weights on the images held out, their keys, and the
        keys of all images that the model or its start model was trained on at the end.
    """
    (images, vocabulary), *extra = sets
    known = known_images(start_from, [image for part in sets for image in part.images])
    rest, held_out = hold_out(images, training, known)
    sets = [LabelledSet(rest, vocabulary), *extra]
    trained_on = tuple(sorted(known.union(image.image.key for part in sets for image in part.images)))
    if not held_out:
        return sets, None, (), trained_on
    accuracy = HeldOutAccuracy(
        average,
        held_out,
        vocabulary,
        model=model,
        precision=training.precision,
        text_encoder=text_encoder,
        folder=out,
        cache=cache,
    )
    return sets, accuracy, tuple(item.image.key for item in held_out), trained_on


def _prepare_norms(network: nn.Module, processes: ProcessGroup, *, several_sets: bool) -> None:
    """Let batch normalisation use the batches of all processes, and one set of statistics for all sets."""
    if several_sets:
        renormalise(network)
    if processes.count > 1:
        synchronise(network)


def _step_sampler(
    sets: Sequence[LabelledSet],
    model: ModelConfig,
    training: TrainingConfig,
    text_encoder: TextEncoder,
    cache: CacheConfig | None,
) -> StepSampler:
    squares = letterbox_reader(model, cache)
    return StepSampler(
        [
            (
                TrainingSet(training_views(images, model.tiles), vocabulary, squares, training),
                embed_vocabulary(vocabulary, text_encoder),
            )
            for images, vocabulary in sets
        ],
        training,
    )


def _require_finite(step: int, metrics: Mapping[str, Tensor], learning_rate: float) -> None:
    """Stop before a diverged step changes the weights and the checkpoint.

    Losses are not scaled in any supported precision, so a value that is not finite is never expected.

    Raises:
        ModelError: a value is not finite.
    """
    if torch.stack(list(metrics.values())).isfinite().all():  # one GPU synchronisation for all values
        return
    name, value = next((n, float(v)) for n, v in metrics.items() if not torch.isfinite(v))
    raise ModelError(
        f"the training diverged in step {step + 1}: {name} is {value}; expected a finite number",
        f"Lower detector.training.learning_rate, which is {learning_rate:g}, and train again.",
    )


def _fabric(processes: ProcessGroup, training: TrainingConfig) -> Fabric:
    """The devices and the precision of the training, in a process that keeps the memory that it frees."""
    keep_freed_memory()
    return Fabric(accelerator="auto", devices=processes.devices, precision=training_precision(training))


def _freeze_encoder(
    fabric: Fabric,
    network: DSMoE | AblatedDSMoE,
    training: TrainingConfig,
    start: Path | None,
    cache: CacheConfig | None,
) -> tuple[FrozenEncoder | None, TrainingConfig]:
    """Freeze the image encoder if the settings ask for it and it has trained weights.

    Returns:
        The frozen encoder, None if it is trained, and the settings that are in effect with it.
    """
    if training.encoder == "train":
        return None, training
    if start is None:
        _log.warning("the image encoder is trained, not frozen: there is no trained encoder to start from")
        return None, training
    frozen = FrozenEncoder(fabric, network, training.precision, cache)
    return frozen, cacheable_augmentations(training)
