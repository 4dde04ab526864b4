"""Tasks and annotations in Label Studio's JSON: what is sent, and what is read back of an open task."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from math import isfinite
from typing import Any

from annotate.studio.convert import Json, parse_regions, pre_annotations, to_result
from annotate.studio.protocol import OpenTask, Region, Task
from dsmoe_core.errors import BoxError, ClassBookError, StudioError
from dsmoe_core.schema import Prediction

BLIND = "blind"  # data.audit of a task whose pre-annotations are held back to see what people find alone
_NAMESPACE = uuid.UUID("6f0c5ed1-6b2a-4c56-9a53-0d5c3cbb1a51")  # fixed: a retry must make the same id
_ARMS = {
    "seed": "chosen before there was a model",
    "ranked": "chosen because the model is unsure here",
    "random": "chosen at random, to check the ranking",
}


def task_json(task: Task, image_url: str, classes: Collection[str]) -> Json:
    """A checked task to import: Label Studio drops or stores invalid pre-annotations silently.

    Raises:
        ClassBookError, BoxError: see Studio.import_tasks.
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
        "arm": task.arm,
        "audit": BLIND if _is_blind(task) else "",
        "queue": f"{task.round:06d}-{task.rank:06d}",  # sorts as text: the view can order by one field only
        "why": _why(task),
    }
    predictions = [] if task.prediction is None else [_prediction(task, task.prediction, classes)]
    return {"data": data, "predictions": predictions}


def annotation_json(task: OpenTask, regions: Sequence[Region], seconds: float, skipped: bool) -> Json:
    """What the labelling page posts when someone submits or skips a task.

    ``unique_id`` depends on the task alone, so that the server refuses a second submission.

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
    """Whether a task's data is as we send it; others may put tasks of their own beside them."""
    return data.keys() >= {"key", "width", "height", "round", "rank"}


def open_task(row: Mapping[str, Any]) -> OpenTask | None:
    """An open task from the server's row; None where the row is no task of ours."""
    data = row["data"]
    if not is_dsmoe_task(data):
        return None
    predictions = row.get("predictions") or []
    newest = max(predictions, key=lambda p: int(p["id"])) if predictions else None
    width, height = int(data["width"]), int(data["height"])
    return OpenTask(
        task_id=int(row["id"]),
        key=str(data["key"]),
        round=int(data["round"]),
        rank=int(data["rank"]),
        width=width,
        height=height,
        pre_annotations=parse_regions(newest["result"], width, height, f"task {row['id']}") if newest else (),
        prediction_id=int(newest["id"]) if newest else None,
    )


def is_open(row: Mapping[str, Any]) -> bool:
    """Whether nobody has annotated or skipped this task."""
    return not row.get("annotations")


def with_agreement(data: Mapping[str, Any], agreement: Mapping[str, float]) -> Json:
    """A task's data with how far its annotators agree, where that is known."""
    known = agreement.get(data.get("key", ""))
    return {**data} if known is None else {**data, "agreement": round(known, 3)}


def missing_predictions(row: Mapping[str, Any], body: Mapping[str, Any]) -> list[Json]:
    """The predictions of a task to send that the server's row has not got yet, told by model version."""
    there = {p["model_version"] for p in row.get("predictions") or []}
    return [p for p in body["predictions"] if p["model_version"] not in there]


def sort_tasks(tasks: Sequence[OpenTask]) -> list[OpenTask]:
    """Most useful first."""
    return sorted(tasks, key=lambda t: (t.round, t.rank, t.task_id))


def check_labels(regions: Sequence[Region], classes: Collection[str], where: str) -> None:
    """Refuse a class that the project lacks.

    Raises:
        ClassBookError
    """
    for region in regions:
        if region.label not in classes:
            raise ClassBookError(
                f"{where} has a box of class {region.label!r}; the project has {', '.join(sorted(classes))}",
                "Add the class to the class book and open the project again.",
            )


def check_title(title: str) -> None:
    """Refuse a title that Label Studio refuses.

    Raises:
        StudioError
    """
    if not 3 <= len(title) <= 50:
        raise StudioError(
            f"project title {title!r} has {len(title)} characters; expected 3 to 50", "Choose another title."
        )


def _prediction(task: Task, prediction: Prediction, classes: Collection[str]) -> Json:
    image = task.image
    marked = pre_annotations(prediction)
    check_labels([region for region, _ in marked], classes, image.name)
    if not isfinite(prediction.uncertainty):
        raise StudioError(
            f"{image.name} has uncertainty {prediction.uncertainty}; expected a finite number",
            "Run the detector on it again.",
        )
    try:
        result = [to_result(region, image.width, image.height, why) for region, why in marked]
    except BoxError as error:
        raise BoxError(f"{image.name}: {error.problem}", error.remedy) from error
    return {
        "model_version": prediction.version,
        # Label Studio calls the *lowest* score the most useful and wants 0 to 1.
        "score": 1 / (1 + max(prediction.uncertainty, 0.0)),
        "result": result,
    }


def _why(task: Task) -> str:
    doubt = f", uncertainty {task.prediction.uncertainty:.2f}" if task.prediction is not None else ""
    blind = ", shown without pre-annotations to check them" if _is_blind(task) else ""
    return f"Round {task.round}, place {task.rank + 1}: {_ARMS[task.arm]}{doubt}{blind}. {task.image.name}"


def _is_blind(task: Task) -> bool:
    """Whether a model chose it, and what the model found is held back."""
    return task.prediction is None and task.arm != "seed"
