"""Label errors in the images that a candidate was trained on and the champion was not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple

from pipelines.label_errors.calibrated import calibrated_label_errors
from pipelines.label_errors.data import LabelsToCheck, labels_with_predictions
from pipelines.label_errors.label_error import ErrorKind, LabelError
from pipelines.workspace.relabel import or_keep
from pipelines.workspace.workspace import Workspace

NEARLY_CERTAIN = 0.8
"""Probability from which on a label error is counted."""


class NewLabels(NamedTuple):
    """How many labels of a round, whose images are new to the candidate, are probably wrong.

    Attributes:
        round: number; None for images of no round, such as imported ones.
        images: with a stored prediction of a model that was not trained on them.
        defects: their boxes, and the places that probably lack a box.
        errors: defects that are misplaced, mislabelled or missed with a probability of at least
            ``NEARLY_CERTAIN``.
        left_out: images without such a prediction.
    """

    round: int | None
    images: int
    defects: int
    errors: int
    left_out: int = 0


class CheckedLabels(NamedTuple):
    """What the search found.

    Attributes:
        rounds: the counts of each round with new images, the images of no round last.
        reference: the counts of the test set, whose labels are trusted; without a test set all are 0.
    """

    rounds: Sequence[NewLabels]
    reference: NewLabels


NO_REFERENCE = NewLabels(None, images=0, defects=0, errors=0)


def check_new_labels(workspace: Workspace, candidate: str, champion: str) -> CheckedLabels:
    """Search the images that are in the candidate's dataset version only, as ``dsmoe label-errors`` does.

    The predictions are the champion's; for images that it has not predicted, those of an earlier model. A box
    is not counted as mislabelled if the champion was trained on no box of its class.

    Args:
        candidate, champion: model ids.
    """
    registry = workspace.registry
    ours, theirs = (
        workspace.dataset_version(registry.card(m).dataset_version) for m in (candidate, champion)
    )
    new = {item.key for item in ours.train} - {item.key for item in theirs.train}
    others = [card.id for card in reversed(registry.cards()) if card.id not in (candidate, champion)]
    labelled = [i for i in ours.labelled(workspace.images_by_key()) if i.image.key in new]
    labels = labels_with_predictions(workspace, labelled, [champion, *others])
    rename = or_keep(workspace.class_book())
    known = {rename(box.label) for item in theirs.train for box in item.boxes}
    of_round = _rounds(workspace)
    rounds: dict[int | None, list[str]] = defaultdict(list)
    for key in sorted(new):
        rounds[of_round.get(key)].append(key)
    return check_labels(labels, known, rounds)


def check_labels(
    labels: LabelsToCheck, known: Container[str | None], rounds: Mapping[int | None, Sequence[str]]
) -> CheckedLabels:
    """Count the nearly certain errors of each round and of the reference.

    Args:
        known: classes whose boxes can be mislabelled.
        rounds: keys of the images of each round.
    """
    errors = errors_by_image(labels, known)
    boxes = {item.image.key: len(item.annotations) for item in (*labels.labelled, *labels.reference)}
    counts = [
        _count(number, keys, boxes, errors)
        for number, keys in sorted(rounds.items(), key=lambda entry: (entry[0] is None, entry[0]))
    ]
    return CheckedLabels(counts, _count(None, [item.image.key for item in labels.reference], boxes, errors))


def errors_by_image(labels: LabelsToCheck, known: Container[str | None]) -> dict[str, list[LabelError]]:
    """The nearly certain errors by image key, of the reference too; a place of several kinds counts once.

    Args:
        known: classes whose boxes can be mislabelled.
    """
    found: dict[str, dict[object, LabelError]] = defaultdict(dict)
    every = (*labels.labelled, *labels.reference)
    for error in calibrated_label_errors(every, labels.predictions, labels.classes) if every else []:
        if error.score < NEARLY_CERTAIN:
            continue
        if error.kind is ErrorKind.MISLABELLED and error.label not in known:
            continue
        place = error.box.corners if error.annotation is None else error.annotation
        found[error.image.key].setdefault(place, error)
    return {key: list(errors.values()) for key, errors in found.items()}


def _count(
    number: int | None,
    keys: Sequence[str],
    boxes: Mapping[str, int],
    errors: Mapping[str, Sequence[LabelError]],
) -> NewLabels:
    """The counts of one round.

    Args:
        keys: its images.
        boxes: number of boxes of each image with a prediction, by image key.
        errors: see ``errors_by_image``.
    """
    inside = [key for key in keys if key in boxes]
    of_images = [error for key in inside for error in errors.get(key, [])]
    missed = sum(error.annotation is None for error in of_images)
    defects = sum(boxes[key] for key in inside) + missed
    return NewLabels(number, len(inside), defects, len(of_images), len(keys) - len(inside))


def _rounds(workspace: Workspace) -> dict[str, int]:
    """The last round that each image was sent in, by image key."""
    journal = workspace.journal
    return {task.key: row.round for row in journal.rounds() for task in journal.tasks(row.round)}
