"""Training on labelled files without a round; in one process or under torchrun."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dsmoe_core.config import ModelConfig, TrainingConfig
from dsmoe_core.data.annotation_set import AnnotationSet
from dsmoe_core.data.external_images import read_external_images
from dsmoe_core.digest import sha256_of
from dsmoe_core.schema import LabelledImage
from pipelines.detectors.ds_moe import dsmoe_backend
from pipelines.progress import ProgressReporter, format_losses
from pipelines.settings.environment import Environment
from pipelines.settings.workspace import MAX_PIXELS
from pipelines.workspace.ingest import refuse_test_images
from pipelines.workspace.model_ref import resolve_model
from pipelines.workspace.relabel import relabel_image
from pipelines.workspace.workspace import Workspace
from prompts.class_book import ClassBook
from prompts.glossary import glossary_book


@dataclass(frozen=True, slots=True)
class TrainingFiles:
    """Inputs, output and settings of one training.

    Attributes:
        annotations: the labels.
        images: folder that the image names are relative to.
        out: folder of the model.
        class_book: by default the workspace's, or the glossary's descriptions of the annotations' classes.
        start_from: folder or id of the model to start from; None for initial weights.
        changes: training settings that override the workspace's, as (name, value).
        intensity_max: value that is white in images of more than 8 bits; None: the workspace's, else that of
            the model to start from, else chosen from the images.
        strict: refuse labels that are not taken completely.
        teacher: folder of the model to learn from as well; None for the labels only.
        model: the network; None for the workspace's, or the default one.
    """

    annotations: AnnotationSet
    images: Path
    out: Path
    class_book: Path | None = None
    start_from: str | None = None
    changes: tuple[tuple[str, Any], ...] = ()
    intensity_max: int | None = None
    strict: bool = False
    teacher: Path | None = None
    model: ModelConfig | None = None


def train_from_files(
    files: TrainingFiles, workspace: Workspace | None, environment: Environment, progress: ProgressReporter
) -> dict[str, Any]:
    """Train one model; images that cannot be read are skipped and listed.

    Args:
        files: inputs, output and settings.
        workspace: its settings and class book are used; None for the defaults.
        environment: keys, and the folder of pretrained weights.
        progress: progress reporter.

    Returns:
        Summary of the training, with the number of ``images``, the ``account`` of the labels, the intensity
        ``scale`` (None without images of more than 8 bits), and the names of the ``clipped`` images.

    Raises:
        DataError: no image can be read, a class is not in the class book, or an image is in the workspace's
            test set.
        ModelError: the model to start from does not exist, or the teacher does not fit.
    """
    if files.class_book is not None:
        book = ClassBook.load(files.class_book)
    else:
        book = workspace.class_book() if workspace else glossary_book(files.annotations.classes)
    start = resolve_model(files.start_from, workspace).folder if files.start_from else None
    settings = workspace.settings.detector.training if workspace else TrainingConfig()
    with tempfile.TemporaryDirectory() as scratch:
        progress.status("reading the images")
        external = read_external_images(
            files.annotations,
            files.images,
            Path(scratch),
            max_pixels=workspace.settings.max_pixels if workspace else MAX_PIXELS,
            intensity_max=files.intensity_max or _intensity_max(workspace, start or files.teacher),
            progress=progress.advance,
        )
        if files.strict:
            external.account.require_complete(f"the labels of {files.images}")
        scale = external.scale.intensity_max if external.scale is not None else None
        detector = dsmoe_backend(workspace, environment, intensity_max=scale, model=files.model)
        if workspace is not None:
            _refuse_test_set(external.labelled, files.images, workspace)
        labelled = [_with_content_key(relabel_image(p, book.resolve)) for p in external.labelled]
        progress.status("training")
        summary = detector.fit(
            images=labelled,
            vocabulary=book.vocabulary(),
            training=settings.model_copy(update=dict(files.changes)),
            out=files.out,
            start_from=start,
            teacher=files.teacher,
            progress=lambda step, steps, metrics: progress.advance(step, steps, format_losses(metrics)),
        )
    return {
        **summary,
        "images": len(labelled),
        "account": external.account,
        "scale": external.scale,
        "clipped": external.clipped,
    }


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
