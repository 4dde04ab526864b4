"""Labelled images for a look at the data: of a workspace, or of files from anywhere."""

from __future__ import annotations

import random
from pathlib import Path
from typing import NamedTuple

from dsmoe_core.config import ModelConfig, TrainingConfig
from dsmoe_core.data.annotation_set import AnnotationSet, ImageAnnotations
from dsmoe_core.data.external_images import ExternalImages, read_external_images
from dsmoe_core.data.formats import read_annotations
from dsmoe_core.errors import DataError
from dsmoe_core.schema import ImageRecord, LabelledImage
from pipelines.datasets.relabel import in_book_classes
from pipelines.settings import MAX_PIXELS
from pipelines.workspace.workspace import Workspace


class LabelledData(NamedTuple):
    """What people said, with the settings that a training on it would have.

    Attributes:
        images: with at least one box among them; sizes as the labels say.
        folder: of images that were not read yet; None for those of a workspace.
    """

    images: tuple[LabelledImage, ...]
    classes: tuple[str, ...]
    model: ModelConfig
    training: TrainingConfig
    folder: Path | None = None

    def sample(self, count: int, seed: int, scratch: Path) -> ExternalImages:
        """Up to ``count`` images drawn at random, read; those with a box come before those without.

        Args:
            scratch: a file that is not upright or not 8 bit is converted into this folder.

        Raises:
            DataError: none can be read. FormatError: one has another size than its labels say.
        """
        order = random.Random(seed).sample(self.images, len(self.images))  # noqa: S311 - no secret
        chosen = tuple(sorted(order, key=lambda p: not p.annotations)[:count])
        if self.folder is None:
            return ExternalImages(chosen, ())
        known = AnnotationSet(self.classes, tuple(map(_entry, chosen)))
        return read_external_images(known, self.folder, scratch, max_pixels=MAX_PIXELS)


def from_workspace(path: Path) -> LabelledData:
    """What was labelled in a workspace; its test set where nothing was labelled yet.

    Raises:
        DataError: there is no box in it. WorkspaceError: there is no workspace.
    """
    with Workspace.open(path) as opened:
        labelled = list(opened.annotations().values()) or opened.test_set()
        book, detector = opened.class_book(), opened.settings.detector
        renamed = tuple(in_book_classes(p, book.resolve) for p in labelled)
        found = LabelledData(renamed, book.vocabulary().names, detector.model, detector.training)
        return _with_boxes(found, str(opened.path))


def from_files(annotations: Path, images: Path, model: ModelConfig) -> LabelledData:
    """What an annotation file or folder says of images below ``images``; no image is opened yet.

    Raises:
        DataError: there is no box in it. FormatError: it is in no format of ours.
    """
    known = read_annotations(annotations, images)
    labelled = tuple(
        LabelledImage(ImageRecord(e.name, e.name, images / e.name, e.width, e.height), e.annotations)
        for e in known.images
    )
    return _with_boxes(
        LabelledData(labelled, known.classes, model, TrainingConfig(), images), str(annotations)
    )


def _entry(labelled: LabelledImage) -> ImageAnnotations:
    image = labelled.image
    return ImageAnnotations(image.name, image.width, image.height, labelled.annotations)


def _with_boxes(data: LabelledData, where: str) -> LabelledData:
    if not any(p.annotations for p in data.images):
        raise DataError(f"{where} holds no labelled box; expected at least one", "Label some images first.")
    return data
