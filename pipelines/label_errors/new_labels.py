"""Label errors among the labels that a candidate was trained on and the champion was not."""

from __future__ import annotations

from collections.abc import Set
from typing import NamedTuple

from pipelines.label_errors.calibrated import calibrated_label_errors
from pipelines.label_errors.data import LabelsToCheck, labels_with_predictions
from pipelines.label_errors.label_error import LabelError
from pipelines.workspace.workspace import Workspace

NEARLY_CERTAIN = 0.8
"""Probability from which on a label error is counted."""


class NewLabels(NamedTuple):
    """How many of the new labels are probably wrong.

    Attributes:
        images: new images with a stored prediction of the champion.
        defects: their boxes, and the places that probably lack a box.
        errors: defects that are misplaced, mislabelled or missed with a probability of at least
            ``NEARLY_CERTAIN``.
        left_out: new images without one, such as imported ones.
    """

    images: int
    defects: int
    errors: int
    left_out: int


def check_new_labels(workspace: Workspace, candidate: str, champion: str) -> NewLabels:
    """Search the labels that are in the candidate's dataset version only, as ``dsmoe label-errors`` does.

    The champion's stored predictions of the new images and of the test set are used, as it was trained on
    neither. The probabilities are estimated from both, and the errors are counted in the new images.

    Args:
        candidate, champion: model ids.
    """
    registry, images = workspace.registry, workspace.images_by_key()
    ours, theirs = (
        workspace.dataset_version(registry.card(m).dataset_version) for m in (candidate, champion)
    )
    new = {item.key for item in ours.train} - {item.key for item in theirs.train}
    labelled = [item for item in ours.labelled(images) if item.image.key in new]
    labels = labels_with_predictions(workspace, [*labelled, *workspace.test_set()], models=(champion,))
    found = count_errors(labels, new)
    return found._replace(left_out=len(new) - found.images)


def count_errors(labels: LabelsToCheck, new: Set[str]) -> NewLabels:
    """Count the nearly certain errors in the images with these keys; ``left_out`` is 0.

    Args:
        labels: of the new images and of others, which help to estimate the probabilities.
        new: image keys.
    """
    checked = [item for item in labels.labelled if item.image.key in new]
    if not checked:
        return NewLabels(0, 0, 0, 0)
    found = calibrated_label_errors(labels.labelled, labels.predictions, labels.classes)
    places = {_place(e) for e in found if e.score >= NEARLY_CERTAIN and e.image.key in new}
    missed = sum(annotation is None for _, annotation, _ in places)
    boxes = sum(len(item.annotations) for item in checked)
    return NewLabels(len(checked), boxes + missed, len(places), 0)


def _place(error: LabelError) -> tuple[str, int | None, tuple[float, ...] | None]:
    """What the error is about: a box can be misplaced and mislabelled, and counts once."""
    corners = error.box.corners if error.annotation is None else None
    return error.image.key, error.annotation, corners
