"""Lineage of an image: from each of its boxes back to model, data, class descriptions and code, and forward.

Everything comes from the journal, the stored predictions, the dataset versions and the model cards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from dsmoe_core.errors import DataError
from dsmoe_core.evaluation.matching import pairwise_iou
from dsmoe_core.schema import Annotation, Arm, BoxOutcome, Detection, Harvest, ImageRecord, Prediction
from pipelines.workspace.harvest_boxes import HarvestBoxes
from pipelines.workspace.journal import RoundRecord, SentTask
from pipelines.workspace.workspace import Workspace

SAME_BOX_IOU = 0.99
"""A pre-annotation is a detection from this IoU on: the labelling server stores boxes as percentages."""
MIN_KEY = 6
"""Characters of a key that are enough to name an image."""
_NO_SCORE = {Arm.SEED: "at random, before the first model", Arm.RANDOM: "at random, as the control arm"}


@dataclass(frozen=True, slots=True)
class ModelOrigin:
    """Where the model of a prediction comes from.

    Attributes:
        class_book: version of the class book in the prediction; ``trained_with`` is that of the training.
        commit: of the software that trained it; None if it is unknown.
    """

    id: str
    round: int
    parent: str | None
    dataset_version: str
    class_book: str
    trained_with: str
    commit: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class DetectionRecord:
    """One detection of the stored prediction, and what became of it.

    Attributes:
        index: position in the prediction, from 0; the highest score comes first.
        outcome: None if it was not shown as a pre-annotation, or no annotation came back.
        annotated: the box as it was annotated; None if there is no outcome, or it was deleted.
    """

    index: int
    box: tuple[float, float, float, float]
    label: str
    score: float
    second_best: tuple[str, float] | None
    entropy: float
    uncertainty: Mapping[str, float]
    expert: int | None
    outcome: str | None
    annotated: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class AnnotationRecord:
    """The latest annotations of an image.

    Attributes:
        annotators: user ids of the labelling server; empty for imported labels.
        counts: number of boxes by outcome.
        added: the boxes that annotators drew.
    """

    annotators: tuple[str, ...]
    updated_at: datetime
    labelled: bool
    skipped: bool
    doubt: str | None
    note: str
    seconds: float | None
    agreement: float | None
    boxes: int
    counts: Mapping[str, int]
    added: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Lineage:
    """The lineage of an image.

    Attributes:
        role: pool or test.
        round, arm, rank, acquisition, score, reason: why it was sent; None if it was never sent.
        model: of the pre-annotations; None where none were shown.
        experts: (index, mean weight) of the experts that were active in the image.
        detections: of the pre-annotations' prediction.
        annotation: None if no annotation came back.
        dataset_versions: those that have the image, oldest first; the test set among them for a test image.
        trained_models: models whose training set has the image, oldest first.
    """

    key: str
    name: str
    role: str
    task_id: int | None
    round: int | None
    arm: str | None
    rank: int | None
    acquisition: str | None
    score: float | None
    reason: str | None
    round_class_book: str | None
    model: ModelOrigin | None
    experts: tuple[tuple[int, float], ...]
    detections: tuple[DetectionRecord, ...]
    annotation: AnnotationRecord | None
    dataset_versions: tuple[str, ...]
    trained_models: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The lineage as JSON values; times are ISO 8601."""
        return dict(_plain(asdict(self)))


def explain(workspace: Workspace, target: str, detection: int | None = None) -> Lineage:
    """The lineage of an image.

    Args:
        target: task id of Label Studio, name of the image, or at least the beginning of its key.
        detection: index of the only detection to report; None: all.

    Raises:
        DataError: there is no such image or no such detection, or several images fit.
    """
    journal = workspace.journal
    tasks = {task.key: task for task in journal.tasks()}
    image = _find_image(workspace, target, tasks)
    task, harvest = tasks.get(image.key), journal.harvests().get(image.key)
    boxes = journal.harvest_boxes().get(image.key, HarvestBoxes((), ()))
    version = task.version if task else None
    prediction = workspace.prediction_store.lookup(version).get(image.key) if version else None
    datasets = _dataset_versions(workspace, image.key)
    record = next((r for r in journal.rounds() if task and r.round == task.round), None)
    return Lineage(
        image.key,
        image.name,
        "test" if image.key in {i.key for i in workspace.images("test")} else "pool",
        **_selection(task, record),
        model=_origin(workspace, version),
        experts=_experts(prediction),
        detections=_detections(prediction, boxes.boxes, detection, image.name),
        annotation=_annotation(harvest, boxes),
        dataset_versions=datasets,
        trained_models=tuple(
            card.id for card in workspace.registry.cards() if card.dataset_version in datasets
        ),
    )


def _find_image(workspace: Workspace, target: str, tasks: Mapping[str, SentTask]) -> ImageRecord:
    """The image of a task id, else of a name, else of the beginning of a key or the end of a name."""
    images = workspace.images()
    by_task = {str(task.task_id): task.key for task in tasks.values() if task.task_id is not None}
    searches = (
        [i for i in images if i.key == by_task.get(target)],
        [i for i in images if target in (i.name, i.key)],
        [i for i in images if len(target) >= MIN_KEY and i.key.startswith(target)],
        [i for i in images if i.name.endswith(f"/{target}")],
    )
    found = next((result for result in searches if result), [])
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(i.name for i in found[:3])
        raise DataError(f"{len(found)} images fit {target!r}, such as {names}", "Give the whole name or key.")
    raise DataError(
        f"{target!r} is neither a task id nor the name or key of one of the {len(images)} images",
        "Give one of these; `dsmoe ui` lists the images.",
    )


def _selection(task: SentTask | None, record: RoundRecord | None) -> dict[str, Any]:
    """Why the image was sent."""
    names = ("task_id", "round", "rank", "acquisition", "score")
    values: dict[str, Any] = {name: getattr(task, name) if task else None for name in names}
    reason = None
    if task is not None:
        score = "" if task.score is None else f", acquisition score {task.score:.4g}"
        reason = _NO_SCORE.get(task.arm, f"rank {task.rank + 1} by {task.acquisition}{score}")
    return values | {
        "arm": str(task.arm) if task else None,
        "reason": reason,
        "round_class_book": record.class_book if record else None,
    }


def _origin(workspace: Workspace, version: str | None) -> ModelOrigin | None:
    """The model of the version ``MODEL+BOOK`` of a prediction."""
    if version is None:
        return None
    model, _, book = version.rpartition("+")
    card = workspace.registry.card(model)
    return ModelOrigin(
        model,
        card.round,
        card.parent,
        card.dataset_version,
        book,
        card.class_book,
        card.commit,
        card.created_at,
    )


def _experts(prediction: Prediction | None) -> tuple[tuple[int, float], ...]:
    if prediction is None:
        return ()
    return tuple(zip(prediction.routing.experts, prediction.routing.weights, strict=True))


def _detections(
    prediction: Prediction | None, outcomes: tuple[BoxOutcome, ...], only: int | None, name: str
) -> tuple[DetectionRecord, ...]:
    """The detections of a prediction, each with the outcome of the pre-annotation that it became."""
    found = prediction.detections if prediction else ()
    if only is not None and not 0 <= only < len(found):
        raise DataError(
            f"{name} has no detection {only}; it has {len(found)} stored detections, counted from 0",
            "Leave out --detection to list them.",
        )
    matched = _matched(found, outcomes)
    return tuple(
        DetectionRecord(
            index,
            d.box.corners,
            d.label,
            d.score,
            d.second_best,
            d.entropy,
            dict(d.uncertainty),
            d.expert,
            str(matched[index].outcome) if index in matched else None,
            _box_json(matched[index].annotated) if index in matched else None,
        )
        for index, d in enumerate(found)
        if only in (None, index)
    )


def _matched(detections: tuple[Detection, ...], outcomes: tuple[BoxOutcome, ...]) -> dict[int, BoxOutcome]:
    """The outcome of each detection that was shown, by its index; the class decides between equal boxes."""
    matched: dict[int, BoxOutcome] = {}
    for outcome in outcomes:
        if outcome.shown is None:
            continue
        iou = pairwise_iou([outcome.shown.box], [d.box for d in detections])[0]
        fits = [
            (detections[i].label == outcome.shown.label, float(iou[i]), -i)
            for i in range(len(detections))
            if iou[i] >= SAME_BOX_IOU and i not in matched
        ]
        if fits:
            matched[-max(fits)[2]] = outcome
    return matched


def _annotation(harvest: Harvest | None, boxes: HarvestBoxes) -> AnnotationRecord | None:
    if harvest is None:
        return None
    added = (_box_json(b.annotated) for b in boxes.boxes if b.shown is None)
    return AnnotationRecord(
        boxes.annotators,
        harvest.updated_at,
        harvest.labelled,
        harvest.skipped,
        harvest.doubt,
        harvest.note,
        harvest.seconds,
        harvest.agreement,
        len(harvest.annotations),
        {str(outcome): count for outcome, count in harvest.outcomes.items()},
        tuple(box for box in added if box is not None),
    )


def _box_json(annotation: Annotation | None) -> dict[str, Any] | None:
    if annotation is None:
        return None
    return {"box": list(annotation.box.corners), "label": annotation.label}


def _dataset_versions(workspace: Workspace, key: str) -> tuple[str, ...]:
    """Ids of the dataset versions that have the image, parents first."""
    return tuple(v.id for v in workspace.dataset_versions() if any(item.key == key for item in v.train))


def _plain(value: Any) -> Any:
    """Values that JSON can hold."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime) else value
