"""One training on labelled files, outside of any round; in one process, or in those that torchrun starts."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dsmoe_core.config import TrainingConfig
from dsmoe_core.data.external_images import read_external_images
from dsmoe_core.data.formats import read_annotations
from dsmoe_core.digest import sha256_of
from dsmoe_core.schema import LabelledImage
from pipelines.detectors.ds_moe import dsmoe_backend
from pipelines.progress import ProgressReporter, format_losses
from pipelines.settings import MAX_PIXELS, Environment
from pipelines.workspace.model_ref import resolve_model
from pipelines.workspace.relabel import relabel_image
from pipelines.workspace.workspace import Workspace
from prompts.class_book import ClassBook
from prompts.glossary import glossary_book


@dataclass(frozen=True, slots=True)
class TrainingFiles:
    """What a training is asked to do.

    Attributes:
        annotations: COCO file, VOC or YOLO folder.
        images: folder that its names are relative to.
        out: folder of the model.
        class_book: by default the workspace's, or the glossary's texts for the annotations' classes.
        start_from: model to go on from.
        changes: settings of the training that are not the workspace's.
    """

    annotations: Path
    images: Path
    out: Path
    class_book: Path | None = None
    start_from: str | None = None
    changes: tuple[tuple[str, Any], ...] = ()


def train_from_files(
    files: TrainingFiles, workspace: Workspace | None, environment: Environment, progress: ProgressReporter
) -> dict[str, Any]:
    """Train and return how it ended; what cannot be read is left out, and listed.

    Args:
        workspace: whose settings and class book are used; by default those of a new one.

    Raises:
        DataError: no image can be read, or a class is not in the class book. ModelError: there is no such
            model to start from.
    """
    known = read_annotations(files.annotations, files.images)
    if files.class_book is not None:
        book = ClassBook.load(files.class_book)
    else:
        book = workspace.class_book() if workspace else glossary_book(known.classes)
    start = resolve_model(files.start_from, workspace).folder if files.start_from else None
    settings = workspace.settings.detector.training if workspace else TrainingConfig()
    most = workspace.settings.max_pixels if workspace else MAX_PIXELS
    detector = dsmoe_backend(workspace, environment)
    with tempfile.TemporaryDirectory() as scratch:
        progress.status("reading the images")
        read = read_external_images(
            known, files.images, Path(scratch), max_pixels=most, progress=progress.advance
        )
        labelled = [_by_content(relabel_image(p, book.resolve)) for p in read.labelled]
        progress.status("training")
        summary = detector.fit(
            images=labelled,
            vocabulary=book.vocabulary(),
            training=settings.model_copy(update=dict(files.changes)),
            out=files.out,
            start_from=start,
            progress=lambda step, steps, figures: progress.advance(step, steps, format_losses(figures)),
        )
    return {**summary, "images": len(labelled), "left_out": [one._asdict() for one in read.skipped]}


def _by_content(labelled: LabelledImage) -> LabelledImage:
    """The same under the hash of the file, so that what is kept of it is found again wherever it lies."""
    key = sha256_of(labelled.image.path)
    return replace(labelled, image=replace(labelled.image, key=key))
