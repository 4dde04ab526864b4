"""Renames the classes of annotations and predictions, mostly to the names of a class book.

Boxes keep the class name that they were drawn or detected under, while the class book may have renamed or
removed the class since.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from dsmoe_core.errors import ClassBookError
from dsmoe_core.schema import LabelledImage, Prediction
from prompts.class_book import ClassBook

Rename = Callable[[str], str | None]
"""The new name of a class; None: boxes of this class are left out."""


def or_keep(book: ClassBook) -> Rename:
    """The book's name of a class; a class that the book does not have keeps its name."""

    def rename(name: str) -> str:
        try:
            return book.resolve(name)
        except ClassBookError:
            return name

    return rename


def or_drop(book: ClassBook) -> Rename:
    """The book's name of a class; a class that the book does not have is left out."""

    def rename(name: str) -> str | None:
        try:
            return book.resolve(name)
        except ClassBookError:
            return None

    return rename


def relabel_image(labelled: LabelledImage, rename: Rename) -> LabelledImage:
    """The image with its annotations renamed.

    Args:
        rename: ``book.resolve`` raises ClassBookError for a class that the book does not have; ``or_keep``
            and ``or_drop`` do not.

    Raises:
        ClassBookError: names the image.
    """
    try:
        renamed = [(annotation, rename(annotation.label)) for annotation in labelled.annotations]
    except ClassBookError as error:
        raise ClassBookError(f"{labelled.image.name}: {error.problem}", error.remedy) from error
    return replace(
        labelled, annotations=tuple(replace(a, label=label) for a, label in renamed if label is not None)
    )


def relabel_prediction(prediction: Prediction, rename: Rename) -> Prediction:
    """The prediction with its detections and their class probabilities renamed.

    Of classes that get the same name the highest probability counts.
    """
    detections = []
    for detection in prediction.detections:
        probabilities: dict[str, float] = {}
        for old, probability in detection.probabilities.items():
            if (name := rename(old)) is not None:
                probabilities[name] = max(probability, probabilities.get(name, 0.0))
        if (label := rename(detection.label)) is not None:
            detections.append(replace(detection, label=label, probabilities=probabilities))
    return replace(prediction, detections=tuple(detections))
