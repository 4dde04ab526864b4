"""Tasks and annotations in the JSON format of Label Studio's API."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from math import isfinite
from typing import Any

from annotate.studio.convert import Json, pre_annotations, to_result
from annotate.studio.protocol import OpenTask, Region, Task
from annotate.studio.regions import read_regions
from dsmoe_core.errors import BoxError, ClassBookError, StudioError
from dsmoe_core.schema import Prediction
from dsmoe_core.uncertainty.score_kinds import SCORE_KINDS, Addressee

BLIND = "blind"
"""``data.audit`` of a task in the blind audit, which is shown without its pre-annotations."""
_NAMESPACE = uuid.UUID("6f0c5ed1-6b2a-4c56-9a53-0d5c3cbb1a51")  # fixed, so that a retry has the same id
MIN_EXPERT_RISK = 0.5
"""Risk of an error for the domain expert above which a task is addressed to that person."""
MAX_NAME = 40
"""Characters of an image's name in the reason of its task, which has one line on the page."""


def task_json(task: Task, image_url: str, classes: Collection[str]) -> Json:
    """Body of a task to import, validated here because Label Studio drops invalid predictions silently.

    Args:
        image_url: URL of the image for the server.
        classes: the project's classes.

    Raises:
        ClassBookError, BoxError: see ``Studio.import_tasks``.
        StudioError: the uncertainty is not finite.
    """
    image = task.image
    data = {
        "image": image_url,
        "key": image.key,
        "name": image.name,
        "width": image.width,
        "height": image.height,
        "round": task.round,
        "rank": task.rank,
        "arm": str(task.arm),
        "audit": BLIND if _is_blind(task) else "",
        "queue": f"{task.round:06d}-{task.rank:06d}",  # sorts as text: a view can sort by one field only
        "reason": _reason(task),
    }
    predictions = [] if task.prediction is None else [_prediction_json(task, task.prediction, classes)]
    return {"data": data, "predictions": predictions}


def annotation_json(task: OpenTask, regions: Sequence[Region], seconds: float, skipped: bool) -> Json:
    """Body of a new annotation, as the labelling interface sends it.

    ``unique_id`` depends only on the task, so the server refuses a second submission.

    Raises:
        BoxError: a region lies outside the image.
    """
    body: Json = {
        "result": [to_result(r, task.width, task.height) for r in regions],
        "lead_time": seconds,
        "was_cancelled": skipped,
        "unique_id": str(uuid.uuid5(_NAMESPACE, f"{task.task_id}/{task.key}")),
    }
    if task.prediction_id is not None:
        body["parent_prediction"] = task.prediction_id
    return body


def is_dsmoe_task(data: Mapping[str, Any]) -> bool:
    """Whether a task's data was written by dsmoe. Users may add tasks of their own to the project."""
    return data.keys() >= {"key", "width", "height", "round", "rank"}


def open_task(task: Mapping[str, Any]) -> OpenTask | None:
    """OpenTask from a task in the API's format; None for a task that dsmoe did not create."""
    data = task["data"]
    if not is_dsmoe_task(data):
        return None
    predictions = task.get("predictions") or []
    latest = max(predictions, key=lambda p: int(p["id"])) if predictions else None
    width, height = int(data["width"]), int(data["height"])
    return OpenTask(
        task_id=int(task["id"]),
        key=str(data["key"]),
        round=int(data["round"]),
        rank=int(data["rank"]),
        width=width,
        height=height,
        pre_annotations=read_regions(latest["result"], width, height).regions if latest else (),
        prediction_id=int(latest["id"]) if latest else None,
    )


def is_open(task: Mapping[str, Any]) -> bool:
    """Whether a task has not been annotated or skipped."""
    return not task.get("annotations")


def with_agreement(data: Mapping[str, Any], agreement: Mapping[str, float]) -> Json:
    """A task's data with the agreement of its annotators, if the image key has one."""
    value = agreement.get(data.get("key", ""))
    return {**data} if value is None else {**data, "agreement": round(value, 3)}


def with_label_error(data: Mapping[str, Any], scores: Mapping[str, float]) -> Json:
    """A task's data with the score of its image's most probable label error; without it if there is none."""
    kept = {name: value for name, value in data.items() if name != "label_error"}
    score = scores.get(data.get("key", ""))
    return kept if score is None else {**kept, "label_error": round(score, 3)}


def missing_predictions(task: Mapping[str, Any], body: Mapping[str, Any]) -> list[Json]:
    """Predictions in ``body`` whose model version the stored task does not have yet."""
    versions = {p["model_version"] for p in task.get("predictions") or []}
    return [p for p in body["predictions"] if p["model_version"] not in versions]


def sort_tasks(tasks: Sequence[OpenTask]) -> list[OpenTask]:
    """Sort by round, then by rank."""
    return sorted(tasks, key=lambda t: (t.round, t.rank, t.task_id))


def check_labels(regions: Sequence[Region], classes: Collection[str], where: str) -> None:
    """Check that the project has the classes of all regions.

    Args:
        where: name of the image or task, for the message.

    Raises:
        ClassBookError: a class is missing in the project.
    """
    for region in regions:
        if region.label not in classes:
            raise ClassBookError(
                f"{where} has a box of class {region.label!r}; the project has {', '.join(sorted(classes))}",
                "Add the class to the class book and open the project again.",
            )


def check_title(title: str) -> None:
    """Check the length of a project title.

    Raises:
        StudioError: Label Studio would refuse the title.
    """
    if not 3 <= len(title) <= 50:
        raise StudioError(
            f"project title {title!r} has {len(title)} characters; expected 3 to 50", "Choose another title."
        )


def _prediction_json(task: Task, prediction: Prediction, classes: Collection[str]) -> Json:
    image = task.image
    regions = pre_annotations(prediction)
    check_labels([region for region, _ in regions], classes, image.name)
    if not isfinite(prediction.uncertainty):
        raise StudioError(
            f"{image.name} has uncertainty {prediction.uncertainty}; expected a finite number",
            "Run the detector on it again.",
        )
    try:
        result = [to_result(region, image.width, image.height, reason) for region, reason in regions]
    except BoxError as error:
        raise BoxError(f"{image.name}: {error.problem}", error.remedy) from error
    return {
        "model_version": prediction.version,
        # Label Studio expects 0 to 1 and serves the *lowest* score first.
        "score": 1 / (1 + max(prediction.uncertainty, 0.0)),
        "result": result,
    }


def _reason(task: Task) -> str:
    """One short line: position in the round, how the image was selected, and the end of its name."""
    audit = ", blind audit" if _is_blind(task) else ""
    name = task.image.name
    short = name if len(name) <= MAX_NAME else f"…{name[1 - MAX_NAME :]}"
    return f"Round {task.round}, image {task.rank + 1}: {_selection(task)}{audit}. {short}"


def _selection(task: Task) -> str:
    """How the image was selected. Only the ranked arm is selected by its acquisition score."""
    if task.arm == "seed":
        return "first sample, at random"
    if task.arm == "random":
        return "control sample, at random"
    score = "" if task.score is None else f", score {task.score:.2f}"
    return f"selected by {task.acquisition or 'rank'}{score}, for the {addressee(task.prediction)}"


def addressee(prediction: Prediction | None) -> Addressee:
    """Who should look at an image: the domain expert if its pre-annotations are a matter of the class book.

    That is so if a class outside of the class book, or a confusion by the descriptions, is more probable than
    not for one of them, see ``docs/uncertainty.md``. Otherwise it is the annotator; causes for the ML
    engineer are no reason to annotate.
    """
    detections = () if prediction is None else prediction.detections
    for_expert = [name for name, kind in SCORE_KINDS.items() if kind.addressee is Addressee.DOMAIN_EXPERT]
    if any(d.risks.get(name, 0.0) > MIN_EXPERT_RISK for d in detections for name in for_expert):
        return Addressee.DOMAIN_EXPERT
    return Addressee.ANNOTATOR


def _is_blind(task: Task) -> bool:
    """Whether the task is in the blind audit: selected after the first model, but without a prediction."""
    return task.prediction is None and task.arm != "seed"
