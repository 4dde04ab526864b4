"""Labelled images for inspecting data: of a workspace, or of annotation files."""

from __future__ import annotations

import random
from pathlib import Path
from typing import NamedTuple

from dsmoe_core.config import ModelConfig, TrainingConfig
from dsmoe_core.data.annotation_set import AnnotationSet, ImageAnnotations
from dsmoe_core.data.external_images import ExternalImages, read_external_images
from dsmoe_core.errors import DataError
from dsmoe_core.schema import ImageRecord, LabelledImage
from pipelines.settings.workspace import MAX_PIXELS
from pipelines.workspace.relabel import relabel_image
from pipelines.workspace.workspace import Workspace


class LabelledData(NamedTuple):
    """Labelled images with the settings of a training on them.

    Attributes:
        images: at least one of them has a box; their sizes are those of the annotation files.
        folder: folder of images that are not read yet; None for those of a workspace.
        frozen: the training freezes the image encoder.
    """

    images: tuple[LabelledImage, ...]
    classes: tuple[str, ...]
    model: ModelConfig
    training: TrainingConfig
    folder: Path | None = None
    frozen: bool = False

    def sample(self, count: int, seed: int, scratch: Path) -> ExternalImages:
        """A random sample of up to ``count`` images, read; images with boxes come first.

        Args:
            scratch: folder for converted copies of images that are not upright or not 8 bit.

        Raises:
            DataError: no image can be read.
            FormatError: an image has another size than its annotations say.
        """
        order = random.Random(seed).sample(self.images, len(self.images))  # noqa: S311  # not for secrets
        sampled = tuple(sorted(order, key=lambda p: not p.annotations)[:count])
        if self.folder is None:
            return ExternalImages(sampled, ())
        annotations = AnnotationSet(self.classes, tuple(map(_image_annotations, sampled)))
        return read_external_images(annotations, self.folder, scratch, max_pixels=MAX_PIXELS)


def from_workspace(path: Path) -> LabelledData:
    """The labelled images of a workspace, or its test set if nothing is labelled yet.

    Raises:
        DataError: no image has a box.
        WorkspaceError: there is no workspace.
    """
    with Workspace.open(path) as opened:
        labelled = list(opened.annotations().values()) or opened.test_set()
        book, detector = opened.class_book(), opened.settings.detector
        images = tuple(relabel_image(image, book.resolve) for image in labelled)
        frozen = detector.freezes_encoder(has_parent=opened.champion() is not None)
        names = book.vocabulary().names
        data = LabelledData(images, names, detector.model, detector.training, frozen=frozen)
        return _require_boxes(data, str(opened.path))


def from_files(annotation_set: AnnotationSet, images: Path, model: ModelConfig, source: Path) -> LabelledData:
    """The images of an annotation set; no image is read yet.

    Args:
        images: folder that the image names are relative to.
        source: where the annotations were read from, for messages.

    Raises:
        DataError: no image has a box.
    """
    labelled = tuple(
        LabelledImage(ImageRecord(e.name, e.name, images / e.name, e.width, e.height), e.annotations)
        for e in annotation_set.images
    )
    data = LabelledData(labelled, annotation_set.classes, model, TrainingConfig(), images)
    return _require_boxes(data, str(source))


def _image_annotations(labelled: LabelledImage) -> ImageAnnotations:
    image = labelled.image
    return ImageAnnotations(image.name, image.width, image.height, labelled.annotations)


def _require_boxes(data: LabelledData, where: str) -> LabelledData:
    if not any(p.annotations for p in data.images):
        raise DataError(f"{where} has no labelled box; expected at least one", "Label some images first.")
    return data
