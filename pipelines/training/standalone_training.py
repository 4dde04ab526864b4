"""Training on labelled files without a round; in one process or under torchrun."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from dsmoe_core.checkpoint import read_card
from dsmoe_core.config import ModelConfig, TrainingConfig
from dsmoe_core.data.annotation_set import AnnotationSet
from dsmoe_core.data.augment.choice import cacheable_augmentations
from dsmoe_core.data.external_images import ExternalImages, read_external_images
from dsmoe_core.digest import sha256_of
from dsmoe_core.errors import SettingsError
from dsmoe_core.schema import LabelledImage, Vocabulary
from dsmoe_core.training.distributed import ProcessGroup
from pipelines.detectors.ds_moe import DSMoEBackend, dsmoe_backend
from pipelines.progress import ProgressReporter, format_losses
from pipelines.settings.detector import StartName, backbone_of_start, default_encoder
from pipelines.settings.environment import Environment
from pipelines.settings.workspace import MAX_PIXELS
from pipelines.training.augmentation_choice import choose_augmentation
from pipelines.training.weights import default_start, install_imagenet_lite
from pipelines.workspace.ingest import refuse_test_images
from pipelines.workspace.model_ref import resolve_model
from pipelines.workspace.relabel import relabel_image
from pipelines.workspace.workspace import Workspace
from prompts.class_book import ClassBook
from prompts.glossary import glossary_book

CACHE = "training-cache"
"""Folder inside the model's: images and features of a training without a workspace, removed when it ends."""


@dataclass(frozen=True, slots=True)
class TrainingFiles:
    """Inputs, output and settings of one training.

    Attributes:
        annotations: the labels.
        images: folder that the image names are relative to.
        out: folder of the model.
        class_book: by default the workspace's, or the glossary's descriptions of the annotations' classes.
        start_from: folder or id of the model to start from; None for initial weights.
        start: initial weights of the image encoder, where there is neither a workspace nor a model to start
            from; None: those that ``dsmoe init`` uses. To be given with ``model``.
        changes: training settings that override the workspace's, as (name, value).
        intensity_max: value that is white in images of more than 8 bits; None: the workspace's, else that of
            the model to start from, else chosen from the images.
        strict: refuse labels that are not taken completely.
        teacher: folder of the model to learn from as well; None for the labels only.
        model: the network; None for the workspace's, or the default one.
        choose_augmentation: choose augmentations by the labels and by a short trial (augmentation_choice.py).
    """

    annotations: AnnotationSet
    images: Path
    out: Path
    class_book: Path | None = None
    start_from: str | None = None
    start: StartName | None = None
    changes: tuple[tuple[str, Any], ...] = ()
    intensity_max: int | None = None
    strict: bool = False
    teacher: Path | None = None
    model: ModelConfig | None = None
    choose_augmentation: bool = False


def train_from_files(
    files: TrainingFiles, workspace: Workspace | None, environment: Environment, progress: ProgressReporter
) -> dict[str, Any]:
    """Train one model; images that cannot be read are skipped and listed. A killed training is resumed.

    Args:
        files: inputs, output and settings.
        workspace: its settings and class book are used; None for the defaults.
        environment: keys, and the folder of pretrained weights.
        progress: progress reporter.

    Returns:
        Summary of the training, with the number of ``images``, the ``choices`` that were made from the images
        (input size, augmentations) with their reasons, the ``account`` of the labels, the intensity ``scale``
        (None without images of more than 8 bits), and the names of the ``clipped`` images.

    Raises:
        DataError: no image can be read, a class is not in the class book, or an image is in the workspace's
            test set.
        ModelError: the model to start from does not exist, or the teacher does not fit.
        PrerequisiteError: the initial weights need a package that is not installed.
        SettingsError: initial weights are named, and the workspace or the model to start from has its own; or
            several processes would choose augmentations.
    """
    _check_options(files, workspace)
    if files.class_book is not None:
        book = ClassBook.load(files.class_book)
    else:
        book = workspace.class_book() if workspace else glossary_book(files.annotations.classes)
    start = resolve_model(files.start_from, workspace).folder if files.start_from else None
    network = _network(files, workspace, start, environment)
    with tempfile.TemporaryDirectory() as scratch:
        external = _read(files, workspace, start, Path(scratch), progress)
        scale = external.scale.intensity_max if external.scale is not None else None
        model, reason = network.model, None
        if model is None and workspace is None and external.labelled:
            model, reason = _model_for(external.labelled, network.start)
        detector = dsmoe_backend(
            workspace,
            environment,
            intensity_max=scale,
            model=model,
            start=network.start,
            cache=files.out / CACHE,
        )
        if workspace is not None:
            _refuse_test_set(external.labelled, files.images, workspace)
        labelled = [_with_content_key(relabel_image(p, book.resolve)) for p in external.labelled]
        summary, reasons = _train(
            detector, labelled, book.vocabulary(), network.training, files, start, progress
        )
    _remove_cache(files.out / CACHE)
    return {
        **summary,
        "images": len(labelled),
        "choices": [*([reason] if reason else []), *reasons],
        "account": external.account,
        "scale": external.scale,
        "clipped": external.clipped,
    }


def _train(
    detector: DSMoEBackend,
    labelled: Sequence[LabelledImage],
    vocabulary: Vocabulary,
    settings: TrainingConfig,
    files: TrainingFiles,
    start: Path | None,
    progress: ProgressReporter,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Train with the settings and the changes of ``files``; returns the summary, and reasons of choices."""
    training = settings.model_copy(update=dict(files.changes))
    if detector.freezes_encoder(training, start):
        training = cacheable_augmentations(training)
    reasons: tuple[str, ...] = ()
    if files.choose_augmentation:
        choice = choose_augmentation(detector, labelled, vocabulary, training, files.out, start, progress)
        training, reasons = training.model_copy(update=choice.changes), choice.reasons
    progress.status("training")
    summary = detector.fit(
        images=labelled,
        vocabulary=vocabulary,
        training=training,
        out=files.out,
        start_from=start,
        teacher=files.teacher,
        progress=lambda step, steps, metrics: progress.advance(step, steps, format_losses(metrics)),
    )
    return summary, reasons


def _read(
    files: TrainingFiles,
    workspace: Workspace | None,
    start_from: Path | None,
    scratch: Path,
    progress: ProgressReporter,
) -> ExternalImages:
    """Read the images and their labels.

    Args:
        scratch: folder for converted images.
    """
    progress.status("reading the images")
    external = read_external_images(
        files.annotations,
        files.images,
        scratch,
        max_pixels=workspace.settings.max_pixels if workspace else MAX_PIXELS,
        intensity_max=files.intensity_max or _intensity_max(workspace, start_from or files.teacher),
        progress=progress.advance,
    )
    if files.strict:
        external.account.require_complete(f"the labels of {files.images}")
    return external


class _Network(NamedTuple):
    """What is trained.

    Attributes:
        model: None: the workspace's; without a workspace, chosen from the images.
        start: initial weights of the image encoder, where there is no workspace.
        training: settings.
    """

    model: ModelConfig | None
    start: StartName
    training: TrainingConfig


def _network(
    files: TrainingFiles, workspace: Workspace | None, start_from: Path | None, environment: Environment
) -> _Network:
    """The network of the workspace or of the model to start from, else that of a new workspace.

    A model's image encoder stays as it was trained, frozen or not.

    Raises:
        PrerequisiteError: the initial weights need a package that is not installed.
        ModelError: the model to start from is not complete.
    """
    if workspace is not None:
        if start_from is None:
            _install_initial_weights(files.model, workspace, environment)
        return _Network(files.model, "scratch", workspace.settings.detector.training)
    if start_from is not None:
        card = read_card(start_from)
        training = TrainingConfig(encoder=card.encoder or "train")
        return _Network(files.model or card.config, "scratch", training)
    start = files.start or default_start("nano")
    _install_imagenet(start, environment)
    return _Network(files.model, start, TrainingConfig(encoder=default_encoder(start)))


def _check_options(files: TrainingFiles, workspace: Workspace | None) -> None:
    """Refuse options that exclude each other."""
    owner = "--from" if files.start_from else "the workspace" if workspace else None
    if files.start is not None and owner is not None:
        raise SettingsError(
            f"--start is {files.start}, and {owner} has its own weights", "Leave out one of the two."
        )
    count = ProcessGroup.current().count
    if files.choose_augmentation and count > 1:
        raise SettingsError(
            f"--choose-augmentation is given to {count} processes; expected one process",
            "Leave it out, or train without torchrun.",
        )


def _remove_cache(cache: Path) -> None:
    """Remove the cache of a finished training; of several processes, the main one does when none reads it."""
    processes = ProcessGroup.current()
    processes.barrier()
    if processes.is_main:
        shutil.rmtree(cache, ignore_errors=True)


def _model_for(labelled: Sequence[LabelledImage], start: StartName) -> tuple[ModelConfig, str]:
    """The default network with an input and a head that fit the images and their boxes, and the reason.

    Args:
        start: initial weights, which determine the backbone.
    """
    from dsmoe_core.data.input_size import choose_head_strides, choose_input_size, relative_thickness

    sizes = [(item.image.width, item.image.height) for item in labelled]
    boxes = [(a.box, item.image.width, item.image.height) for item in labelled for a in item.annotations]
    defects = relative_thickness(boxes)
    default = ModelConfig(backbone=backbone_of_start(start))
    chosen = choose_input_size(sizes, defects, default)
    model = chosen.apply(default)
    strides = choose_head_strides(sizes, defects, model)
    reason = (
        f"the network's input is {chosen.image_px} px: {chosen.reason}; "
        f"the head has the strides {', '.join(map(str, strides))}; the encoder's initial weights: {start}"
    )
    return model.model_copy(update={"head_strides": strides}), reason


def _install_initial_weights(
    model: ModelConfig | None, workspace: Workspace, environment: Environment
) -> None:
    """Convert the ImageNet weights that the settings name; of several processes, the main one does.

    Args:
        model: network to train; None: the workspace's.

    Raises:
        PrerequisiteError: their package is not installed.
    """
    settings = workspace.settings.detector
    if (model or settings.model).backbone == settings.model.backbone:
        _install_imagenet(settings.start, environment)


def _install_imagenet(start: StartName, environment: Environment) -> None:
    """Convert the ImageNet weights if they are the start; of several processes, the main one does.

    Raises:
        PrerequisiteError: their package is not installed.
    """
    if start != "imagenet-lite":
        return
    processes = ProcessGroup.current()
    if processes.is_main:
        install_imagenet_lite(environment.weights, None)
    processes.barrier()


def _refuse_test_set(labelled: Iterable[LabelledImage], images: Path, workspace: Workspace) -> None:
    """Refuse training images whose content is in the workspace's test set."""
    test = {image.key for image in workspace.images("test")}
    if test:
        names = [p.image.name for p in labelled]
        in_test = [name for name in names if sha256_of(images / name) in test]
        refuse_test_images(in_test, "the training labels")


def _intensity_max(workspace: Workspace | None, start: Path | None) -> int | None:
    from dsmoe_core.runtimes.loading import training_intensity_max

    own = workspace.intensity_max() if workspace is not None else None
    return own or (training_intensity_max(start) if start is not None else None)


def _with_content_key(labelled: LabelledImage) -> LabelledImage:
    """The image with the hash of its file as key, so that caches find it under any path."""
    key = sha256_of(labelled.image.path)
    return replace(labelled, image=replace(labelled.image, key=key))
