"""Selects the detections that annotators are shown as pre-annotations."""

from __future__ import annotations

from dataclasses import replace

from dsmoe_core.cross_class_nms import suppress_across_classes
from dsmoe_core.schema import Prediction
from pipelines.settings.rounds import RoundSettings
from pipelines.workspace.operating_points import OperatingPoints
from pipelines.workspace.relabel import or_drop, relabel_prediction
from pipelines.workspace.workspace import Workspace
from prompts.class_book import ClassBook

UNMEASURED_SCORE = 0.3
"""Threshold of a model without operating points, because there is no test set."""


def pre_annotations(
    prediction: Prediction, settings: RoundSettings, points: OperatingPoints | None
) -> Prediction:
    """The prediction with the detections that become pre-annotations, highest score first.

    Detections below the threshold are left out, as deleting many wrong boxes takes annotators longer than
    drawing the missing ones. The threshold is ``pre_annotation_score``; where that is not set, the operating
    point of the class, and without operating points ``UNMEASURED_SCORE``. Of overlapping detections of
    several classes that with the highest score remains; its second-best class
    (:attr:`Detection.second_best`) is shown with it, because relabelling a box is faster than deleting it. At
    most ``max_pre_annotations`` detections are returned.

    Args:
        points: of the model that predicted; its classes must have the names that they have in the prediction.
    """
    confident = [d for d in prediction.detections if d.score >= threshold(d.label, settings, points)]
    detections = suppress_across_classes(confident)[: settings.max_pre_annotations]
    return replace(prediction, detections=tuple(detections))


def threshold(label: str, settings: RoundSettings, points: OperatingPoints | None) -> float:
    """Lowest score of a pre-annotation of a class."""
    if settings.pre_annotation_score is not None:
        return settings.pre_annotation_score
    return UNMEASURED_SCORE if points is None else points.threshold(label)


def shown_detections(workspace: Workspace, prediction: Prediction) -> Prediction:
    """The pre-annotations of a workspace for a stored prediction, with the classes of its version.

    Raises:
        ModelError: the operating points of the model are damaged.
    """
    points = workspace.registry.operating_points(prediction.version.rpartition("+")[0])
    return pre_annotations(prediction, workspace.settings.round, points)


def current_pre_annotations(workspace: Workspace, prediction: Prediction, book: ClassBook) -> Prediction:
    """The pre-annotations of a workspace for a stored prediction, with the published class book's classes.

    If another class book was published after the prediction was made, its classes are renamed; detections of
    classes that were removed are left out.

    Args:
        book: the published class book.

    Raises:
        ModelError: the operating points of the model are damaged.
    """
    shown = shown_detections(workspace, prediction)
    if prediction.version.rpartition("+")[2] == book.version:
        return shown
    return relabel_prediction(shown, or_drop(book))
