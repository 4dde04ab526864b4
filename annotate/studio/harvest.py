"""Converts annotated Label Studio tasks to Harvests: final boxes and outcomes of the pre-annotations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from annotate.studio.agreement import agreement, iou, merge_regions
from annotate.studio.controls import ImageChoice, image_feedback
from annotate.studio.harvest_account import account_of_task
from annotate.studio.protocol import Consensus, Region
from annotate.studio.regions import EDGE_TOLERANCE_PX, LeftOutRegion, ReadRegions, read_prompts, read_regions
from annotate.studio.task_format import is_dsmoe_task
from dsmoe_core.schema import Annotation, Box, BoxOutcome, Harvest, Outcome

_TOLERANCE_PX = EDGE_TOLERANCE_PX
"""A corner that differs by less did not move: the browser rounds when it converts to screen pixels."""
_MAX_NAMED = 3
"""Regions that the note of an image names; the account of the harvest has all."""
_DOUBTS = (ImageChoice.NEEDS_EXPERT, ImageChoice.UNSURE)  # most serious first


@dataclass(frozen=True, slots=True)
class _AnnotatorResult:
    """Parsed annotation of one annotator.

    Attributes:
        annotation: as Label Studio stores it.
        read: its regions; none if it was skipped.
        doubt: keeps the annotation from counting as labelled: chosen by the annotator, or inferred from a
            contradiction or from a region that was left out.
    """

    annotation: Mapping[str, Any]
    read: ReadRegions
    doubt: ImageChoice | None
    note: str

    @property
    def regions(self) -> tuple[Region, ...]:
        return self.read.regions

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
    others; otherwise ``consensus`` decides, see ``Studio.harvest``. If a region is left out, the image is
    unsure, and the note and the account say which region and why.

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
    shown = read_regions(prediction["result"], *_image_size(task)).regions if prediction else ()
    times = [float(t) for r in selected if (t := r.annotation.get("lead_time")) is not None]
    doubt = str(doubts[0]) if doubts else None
    note = "\n".join(dict.fromkeys(r.note for r in results if r.note))
    return Harvest(
        key=str(task["data"]["key"]),
        annotations=tuple(Annotation(r.box, r.label) for r in regions),
        annotation_id=selected[-1].changed[1],
        updated_at=_updated_at(task, results),
        skipped=skipped,
        outcomes=dict.fromkeys(Outcome, 0) if skipped else outcomes(shown, regions),
        version=str(prediction["model_version"]) if prediction else None,
        seconds=sum(times) if times else None,
        doubt=doubt,
        note=note,
        annotators=len(results),
        agreement=agreement([r.regions for r in results if not r.skipped]),
        account=account_of_task(
            task, [(r.annotation, r.read) for r in selected], skipped=skipped, doubt=doubt, note=note
        ),
        annotator_ids=tuple(dict.fromkeys(str(r.annotator) for r in selected)),
        boxes=() if skipped else box_outcomes(shown, regions),
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
    for box in box_outcomes(shown, annotated):
        counts[box.outcome] += 1
    return counts


def box_outcomes(shown: Sequence[Region], annotated: Sequence[Region]) -> tuple[BoxOutcome, ...]:
    """What became of each box, see ``outcomes``: the annotated boxes in order, then the deleted ones."""
    remaining = {region.id: region for region in shown}
    result = []
    for region in annotated:
        before = remaining.pop(region.id, None)
        result.append(BoxOutcome(_outcome(before, region), _annotation(before), _annotation(region)))
    result += [BoxOutcome(Outcome.DELETED, _annotation(region), None) for region in remaining.values()]
    return tuple(result)


def _annotation(region: Region | None) -> Annotation | None:
    return None if region is None else Annotation(region.box, region.label)


def _annotator_results(task: Mapping[str, Any]) -> list[_AnnotatorResult]:
    """The latest annotation of each annotator, oldest first."""
    results = sorted(
        (_annotator_result(a, task) for a in task.get("annotations") or []), key=lambda r: r.changed
    )
    return sorted({r.annotator: r for r in results}.values(), key=lambda r: r.changed)


def _annotator_result(annotation: Mapping[str, Any], task: Mapping[str, Any]) -> _AnnotatorResult:
    results = annotation.get("result") or []
    feedback = image_feedback(results)
    if annotation.get("was_cancelled"):
        return _AnnotatorResult(annotation, ReadRegions(), None, feedback.note)
    size = _image_size(task)
    prompts = read_prompts(results, *size)
    read = read_regions(results, *size)
    read = replace(read, left_out=read.left_out + prompts.left_out)
    problems = [_left_out_note(read.left_out)] if read.left_out else []
    if unused := _unused_prompt(prompts.regions, read.regions):
        problems.append(unused)
    if read.regions and ImageChoice.NO_DEFECT in feedback.choices:
        problems.append(f'("{ImageChoice.NO_DEFECT}" is selected, number of boxes: {len(read.regions)})')
    doubt = next((doubt for doubt in _DOUBTS if doubt in feedback.choices), None)
    if problems:
        doubt = doubt or ImageChoice.UNSURE
    return _AnnotatorResult(annotation, read, doubt, " ".join(filter(None, (feedback.note, *problems))))


def _left_out_note(left_out: Sequence[LeftOutRegion]) -> str:
    """Say which regions were left out and why."""
    named = "; ".join(f"region {r.id}: {r.detail}" for r in left_out[:_MAX_NAMED])
    more = f"; and {len(left_out) - _MAX_NAMED} more" if len(left_out) > _MAX_NAMED else ""
    return f"(left out: {named}{more})"


def _unused_prompt(prompts: Sequence[Region], regions: Sequence[Region]) -> str | None:
    """Describe a smart-tool prompt without a box of its class; None if there is no such prompt.

    If the ML backend is down, the prompt may be the only sign of a defect.
    """
    for prompt in prompts:
        if not any(r.label == prompt.label and iou(r.box, prompt.box) for r in regions):
            return f'(a smart tool marks "{prompt.label}" where there is no such box)'
    return None


def _select(results: Sequence[_AnnotatorResult], consensus: Consensus) -> Sequence[_AnnotatorResult]:
    """The annotations that count, oldest first; at least one.

    A skipped task does not vote. For ``majority`` and ``union``, if at most half of the voters are sure,
    only those in doubt count, so the merged result has the doubt. For ``union`` an annotation with a region
    that was left out always counts.
    """
    votes = [r for r in results if not r.skipped]
    ground_truth = [r for r in votes if r.annotation.get("ground_truth")]
    if ground_truth:
        return ground_truth[-1:]
    if consensus == "latest" or not votes:
        return results[-1:]
    sure = [r for r in votes if r.doubt is None]
    if 2 * len(sure) <= len(votes):
        return [r for r in votes if r.doubt is not None]
    return [r for r in votes if r.doubt is None or (consensus == "union" and r.read.left_out)]


def _without_annotations(task: Mapping[str, Any]) -> Harvest:
    counts: dict[Outcome, int] = dict.fromkeys(Outcome, 0)
    return Harvest(
        str(task["data"]["key"]), (), 0, _updated_at(task, ()), False, counts, None, None, annotators=0
    )


def _updated_at(task: Mapping[str, Any], results: Sequence[_AnnotatorResult]) -> datetime:
    """Time of the last change to a task. After a deletion, only the task's own time shows it."""
    times = [r.changed[0] for r in results]
    return max(times + [datetime.fromisoformat(t) for t in (task.get("updated_at"),) if t])


def _image_size(task: Mapping[str, Any]) -> tuple[int, int]:
    """Width and height of a task's image in pixels."""
    return int(task["data"]["width"]), int(task["data"]["height"])


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
