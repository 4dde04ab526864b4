"""Converts annotated Label Studio tasks to Harvests: final boxes and outcomes of the pre-annotations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from annotate.studio.agreement import agreement, iou, merge_regions
from annotate.studio.controls import ImageChoice, image_feedback
from annotate.studio.convert import parse_prompts, parse_regions
from annotate.studio.protocol import Consensus, Region
from annotate.studio.task_format import is_dsmoe_task
from dsmoe_core.schema import Annotation, Box, Harvest, Outcome

_TOLERANCE_PX = 0.05
"""A corner that differs by less did not move: the browser rounds when it converts to screen pixels."""
_DOUBTS = (ImageChoice.NEEDS_EXPERT, ImageChoice.UNSURE)  # most serious first


@dataclass(frozen=True, slots=True)
class _AnnotatorResult:
    """Parsed annotation of one annotator.

    Attributes:
        annotation: as Label Studio stores it.
        doubt: keeps the annotation from counting as labelled: chosen by the annotator, or inferred from a
            contradiction.
    """

    annotation: Mapping[str, Any]
    regions: tuple[Region, ...]
    doubt: ImageChoice | None
    note: str

    @property
    def skipped(self) -> bool:
        return bool(self.annotation.get("was_cancelled"))

    @property
    def annotator(self) -> object:
        """Identity of the annotator.

        The server gives a number or an object with an id. It gives null for a deleted account; the
        annotation's id then stands for the annotator.
        """
        user = self.annotation.get("completed_by")
        number = user.get("id") if isinstance(user, Mapping) else user
        return f"of annotation {self.annotation['id']}" if number is None else number

    @property
    def changed(self) -> tuple[datetime, int]:
        """Time of the last change and the annotation's id, as a sort key."""
        return datetime.fromisoformat(self.annotation["updated_at"]), int(self.annotation["id"])


def read_harvests(
    tasks: Iterable[Mapping[str, Any]], since: datetime | None = None, consensus: Consensus = "latest"
) -> list[Harvest]:
    """Harvests of all dsmoe tasks, oldest first. Drafts are ignored.

    A task without annotations means that they were deleted. It is included only if ``since`` is given,
    because a first harvest has nothing to delete.

    Args:
        tasks: in the format of Label Studio's API.
        since: leave out tasks that were last changed before this time (with a time zone).
        consensus: see ``Studio.harvest``.
    """
    harvests = [h for task in tasks if (h := harvest_task(task, consensus)) is not None]
    harvests = [h for h in harvests if (h.updated_at >= since if since else h.annotators)]
    return sorted(harvests, key=lambda h: (h.updated_at, h.annotation_id))


def harvest_task(task: Mapping[str, Any], consensus: Consensus = "latest") -> Harvest | None:
    """Combine the annotations of one task.

    The latest annotation of each annotator counts. An annotation marked as ground truth overrides all
    others; otherwise ``consensus`` decides, see ``Studio.harvest``. An invalid region is skipped with a
    warning.

    Returns:
        None for a task that dsmoe did not create, or one without annotations and update time.
    """
    if not is_dsmoe_task(task["data"]):
        return None
    results = _annotator_results(task)
    if not results:
        return _without_annotations(task) if task.get("updated_at") else None
    selected = _select(results, consensus)
    regions = merge_regions([r.regions for r in selected], "majority" if consensus == "majority" else "union")
    skipped = all(r.skipped for r in selected)
    doubts = [doubt for doubt in _DOUBTS if any(r.doubt is doubt for r in selected)]
    prediction = _parent_prediction(selected[-1].annotation, regions, task.get("predictions") or [])
    shown = _regions(prediction, task) if prediction else ()
    times = [float(t) for r in selected if (t := r.annotation.get("lead_time")) is not None]
    return Harvest(
        key=str(task["data"]["key"]),
        annotations=tuple(Annotation(r.box, r.label) for r in regions),
        annotation_id=selected[-1].changed[1],
        updated_at=_updated_at(task, results),
        skipped=skipped,
        outcomes=dict.fromkeys(Outcome, 0) if skipped else outcomes(shown, regions),
        version=str(prediction["model_version"]) if prediction else None,
        seconds=sum(times) if times else None,
        doubt=str(doubts[0]) if doubts else None,
        note="\n".join(dict.fromkeys(r.note for r in results if r.note)),
        annotators=len(results),
        agreement=agreement([r.regions for r in results if not r.skipped]),
    )


def outcomes(shown: Sequence[Region], annotated: Sequence[Region]) -> dict[Outcome, int]:
    """Count accepted, moved, relabelled, deleted and added boxes.

    Boxes are matched by region id. A box that was both moved and relabelled counts as relabelled only,
    because the wrong class is the more serious error. A box that was changed and changed back counts as
    accepted. So accepted + moved + relabelled + deleted = shown, and shown - deleted + added = annotated.

    Args:
        shown: the pre-annotations.
        annotated: the boxes of the annotation.
    """
    counts = dict.fromkeys(Outcome, 0)
    remaining = {region.id: region for region in shown}
    for region in annotated:
        counts[_outcome(remaining.pop(region.id, None), region)] += 1
    counts[Outcome.DELETED] = len(remaining)
    return counts


def _annotator_results(task: Mapping[str, Any]) -> list[_AnnotatorResult]:
    """The latest annotation of each annotator, oldest first."""
    results = sorted(
        (_annotator_result(a, task) for a in task.get("annotations") or []), key=lambda r: r.changed
    )
    return sorted({r.annotator: r for r in results}.values(), key=lambda r: r.changed)


def _annotator_result(annotation: Mapping[str, Any], task: Mapping[str, Any]) -> _AnnotatorResult:
    feedback = image_feedback(annotation["result"])
    if annotation.get("was_cancelled"):
        return _AnnotatorResult(annotation, (), None, feedback.note)
    regions = _regions(annotation, task)
    doubt = next((doubt for doubt in _DOUBTS if doubt in feedback.choices), None)
    contradiction = _unused_prompt(annotation, task, regions)
    if regions and ImageChoice.NO_DEFECT in feedback.choices:
        contradiction = f'("{ImageChoice.NO_DEFECT}" is selected, number of boxes: {len(regions)})'
    if doubt is None and contradiction:
        note = f"{feedback.note} {contradiction}".strip()
        return _AnnotatorResult(annotation, regions, ImageChoice.UNSURE, note)
    return _AnnotatorResult(annotation, regions, doubt, feedback.note)


def _unused_prompt(
    annotation: Mapping[str, Any], task: Mapping[str, Any], regions: Sequence[Region]
) -> str | None:
    """Describe a smart-tool prompt without a box of its class; None if there is no such prompt.

    If the ML backend is down, the prompt may be the only sign of a defect.
    """
    for prompt in parse_prompts(annotation["result"], *_size_and_name(task)):
        if not any(r.label == prompt.label and iou(r.box, prompt.box) for r in regions):
            return f'(a smart tool marks "{prompt.label}" where there is no such box)'
    return None


def _select(results: Sequence[_AnnotatorResult], consensus: Consensus) -> Sequence[_AnnotatorResult]:
    """The annotations that count, oldest first; at least one.

    A skipped task does not vote. For ``majority`` and ``union``, if at most half of the voters are sure,
    only those in doubt count, so the merged result has the doubt.
    """
    votes = [r for r in results if not r.skipped]
    ground_truth = [r for r in votes if r.annotation.get("ground_truth")]
    if ground_truth:
        return ground_truth[-1:]
    if consensus == "latest" or not votes:
        return results[-1:]
    sure = [r for r in votes if r.doubt is None]
    return sure if 2 * len(sure) > len(votes) else [r for r in votes if r.doubt is not None]


def _without_annotations(task: Mapping[str, Any]) -> Harvest:
    counts: dict[Outcome, int] = dict.fromkeys(Outcome, 0)
    return Harvest(
        str(task["data"]["key"]), (), 0, _updated_at(task, ()), False, counts, None, None, annotators=0
    )


def _updated_at(task: Mapping[str, Any], results: Sequence[_AnnotatorResult]) -> datetime:
    """Time of the last change to a task. After a deletion, only the task's own time shows it."""
    times = [r.changed[0] for r in results]
    return max(times + [datetime.fromisoformat(t) for t in (task.get("updated_at"),) if t])


def _regions(annotation: Mapping[str, Any], task: Mapping[str, Any]) -> tuple[Region, ...]:
    return parse_regions(annotation["result"], *_size_and_name(task))


def _size_and_name(task: Mapping[str, Any]) -> tuple[int, int, str]:
    """Width and height of a task's image in pixels, and the task's name for messages."""
    return int(task["data"]["width"]), int(task["data"]["height"]), f"task {task['id']}"


def _outcome(shown: Region | None, annotated: Region) -> Outcome:
    if shown is None:
        return Outcome.ADDED
    if annotated.label != shown.label:
        return Outcome.RELABELLED
    if annotated.origin == "prediction" or _equal(annotated.box, shown.box):
        return Outcome.ACCEPTED
    return Outcome.MOVED


def _equal(a: Box, b: Box) -> bool:
    return all(abs(p - q) <= _TOLERANCE_PX for p, q in zip(a.corners, b.corners, strict=True))


def _parent_prediction(
    annotation: Mapping[str, Any], regions: Sequence[Region], predictions: Sequence[Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    """The prediction an annotation started from: its parent, else the latest with common region ids."""
    parents = [p for p in predictions if p["id"] == annotation.get("parent_prediction")]
    if parents:
        return parents[0]
    ids = {region.id for region in regions}
    newest_first = sorted(predictions, key=lambda p: int(p["id"]), reverse=True)
    return next((p for p in newest_first if any(r.get("id") in ids for r in p["result"])), None)
