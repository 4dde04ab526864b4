"""What came back: from Label Studio's tasks with annotations to Harvests with every box's outcome."""

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

_SAME_PX = 0.05  # the page turns a box into screen pixels and back: a corner this near did not move
_DOUBTS = (ImageChoice.NEEDS_EXPERT, ImageChoice.UNSURE)  # the graver first


@dataclass(frozen=True, slots=True)
class _AnnotatorResult:
    """What one annotator says about an image.

    Attributes:
        doubt: keeps it from counting: said by the annotator, or seen in a contradiction.
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
        """Tells annotators apart; the server names them by number, or with more about them.

        Whose account was deleted has no name any more, and is told by the annotation.
        """
        who = self.annotation.get("completed_by")
        number = who.get("id") if isinstance(who, Mapping) else who
        return f"of annotation {self.annotation['id']}" if number is None else number

    @property
    def age(self) -> tuple[datetime, int]:
        return datetime.fromisoformat(self.annotation["updated_at"]), int(self.annotation["id"])


def read(
    rows: Iterable[Mapping[str, Any]], since: datetime | None = None, consensus: Consensus = "latest"
) -> list[Harvest]:
    """Harvests of all rows of ours that changed since then, oldest first. Drafts do not count.

    A row without annotations tells that they were taken back, which is news only where something was known:
    it is left out where ``since`` is None.

    Args:
        since: leave out what changed before; with a time zone.
    """
    found = [harvest for row in rows if (harvest := harvest_task(row, consensus)) is not None]
    found = [h for h in found if (h.updated_at >= since if since else h.annotators)]
    return sorted(found, key=lambda h: (h.updated_at, h.annotation_id))


def harvest_task(row: Mapping[str, Any], consensus: Consensus = "latest") -> Harvest | None:
    """What a task's annotators say together; None where it is no task of ours, or has no time of its own.

    Of each annotator the newest annotation counts. One marked as ground truth outweighs all others; else
    ``several`` decides, see Studio.harvest. A region that cannot be read is left out with a warning.
    """
    if not is_dsmoe_task(row["data"]):
        return None
    answers = _answers(row)
    if not answers:
        return _taken_back(row) if row.get("updated_at") else None
    chosen = _chosen(answers, consensus)
    regions = merge_regions([a.regions for a in chosen], "majority" if consensus == "majority" else "union")
    skipped = all(a.skipped for a in chosen)
    doubts = [doubt for doubt in _DOUBTS if any(a.doubt is doubt for a in chosen)]
    shown = _parent(chosen[-1].annotation, regions, row.get("predictions") or [])
    before = _regions(shown, row) if shown else ()
    times = [float(t) for a in chosen if (t := a.annotation.get("lead_time")) is not None]
    return Harvest(
        key=str(row["data"]["key"]),
        annotations=tuple(Annotation(r.box, r.label) for r in regions),
        annotation_id=chosen[-1].age[1],
        updated_at=_changed_at(row, answers),
        skipped=skipped,
        outcomes=dict.fromkeys(Outcome, 0) if skipped else outcomes(before, regions),
        version=str(shown["model_version"]) if shown else None,
        seconds=sum(times) if times else None,
        doubt=str(doubts[0]) if doubts else None,
        note="\n".join(dict.fromkeys(a.note for a in answers if a.note)),
        annotators=len(answers),
        agreement=agreement([a.regions for a in answers if not a.skipped]),
    )


def outcomes(shown: Sequence[Region], left: Sequence[Region]) -> dict[Outcome, int]:
    """How many of the boxes shown were accepted, moved, relabelled or deleted, and how many were added.

    Boxes are told by their ids. One that was moved *and* relabelled counts once, as relabelled: the class
    was wrong, which is the graver mistake. One changed and changed back counts as accepted. So accepted +
    moved + relabelled + deleted is the number shown; less the deleted, plus the added, the number left.
    """
    counts = dict.fromkeys(Outcome, 0)
    before = {region.id: region for region in shown}
    for region in left:
        counts[_outcome(before.pop(region.id, None), region)] += 1
    counts[Outcome.DELETED] = len(before)
    return counts


def _answers(row: Mapping[str, Any]) -> list[_AnnotatorResult]:
    """The newest answer of each annotator, oldest first."""
    answers = sorted((_answer(a, row) for a in row.get("annotations") or []), key=lambda a: a.age)
    return sorted({a.annotator: a for a in answers}.values(), key=lambda a: a.age)


def _answer(annotation: Mapping[str, Any], row: Mapping[str, Any]) -> _AnnotatorResult:
    if annotation.get("was_cancelled"):
        return _AnnotatorResult(annotation, (), None, image_feedback(annotation["result"]).note)
    regions, said = _regions(annotation, row), image_feedback(annotation["result"])
    doubt = next((doubt for doubt in _DOUBTS if doubt in said.choices), None)
    odd = _unanswered(annotation, row, regions)
    if regions and ImageChoice.NO_DEFECT in said.choices:
        odd = f'(says "{ImageChoice.NO_DEFECT}", and has {len(regions)} boxes)'
    if doubt is None and odd:
        return _AnnotatorResult(annotation, regions, ImageChoice.UNSURE, f"{said.note} {odd}".strip())
    return _AnnotatorResult(annotation, regions, doubt, said.note)


def _unanswered(
    annotation: Mapping[str, Any], row: Mapping[str, Any], regions: Sequence[Region]
) -> str | None:
    """Names what a smart tool was pointed at without a box coming of it; None where there is no such thing.

    With the back end down it may be all that tells of a defect.
    """
    for prompt in parse_prompts(annotation["result"], *_place(row)):
        if not any(r.label == prompt.label and iou(r.box, prompt.box) for r in regions):
            return f'(points at "{prompt.label}" with a smart tool, and has no such box there)'
    return None


def _chosen(answers: Sequence[_AnnotatorResult], consensus: Consensus) -> Sequence[_AnnotatorResult]:
    """The answers that count, oldest first; never none.

    A skip is no vote. Merging asks that more than half of those who voted are sure; else those who are not
    sure speak for all.
    """
    judged = [a for a in answers if not a.skipped]
    checked = [a for a in judged if a.annotation.get("ground_truth")]
    if checked:
        return checked[-1:]
    if consensus == "latest" or not judged:
        return answers[-1:]
    sure = [a for a in judged if a.doubt is None]
    return sure if 2 * len(sure) > len(judged) else [a for a in judged if a.doubt is not None]


def _taken_back(row: Mapping[str, Any]) -> Harvest:
    none: dict[Outcome, int] = dict.fromkeys(Outcome, 0)
    return Harvest(
        str(row["data"]["key"]), (), 0, _changed_at(row, ()), False, none, None, None, annotators=0
    )


def _changed_at(row: Mapping[str, Any], answers: Sequence[_AnnotatorResult]) -> datetime:
    """When the server last touched the task: an annotation that is taken back leaves no other time."""
    times = [a.age[0] for a in answers]
    return max(times + [datetime.fromisoformat(t) for t in (row.get("updated_at"),) if t])


def _regions(annotation: Mapping[str, Any], row: Mapping[str, Any]) -> tuple[Region, ...]:
    return parse_regions(annotation["result"], *_place(row))


def _place(row: Mapping[str, Any]) -> tuple[int, int, str]:
    """Width and height of a task's image in pixels, and what to call the task in messages."""
    return int(row["data"]["width"]), int(row["data"]["height"]), f"task {row['id']}"


def _outcome(shown: Region | None, left: Region) -> Outcome:
    if shown is None:
        return Outcome.ADDED
    if left.label != shown.label:
        return Outcome.RELABELLED
    if left.origin == "prediction" or _same(left.box, shown.box):
        return Outcome.ACCEPTED
    return Outcome.MOVED


def _same(one: Box, other: Box) -> bool:
    return all(abs(a - b) <= _SAME_PX for a, b in zip(one.corners, other.corners, strict=True))


def _parent(
    annotation: Mapping[str, Any], regions: Sequence[Region], predictions: Sequence[Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    """The prediction this annotation began as: the one it names, else one whose region ids it still has."""
    named = [p for p in predictions if p["id"] == annotation.get("parent_prediction")]
    if named:
        return named[0]
    ids = {region.id for region in regions}
    newest_first = sorted(predictions, key=lambda p: int(p["id"]), reverse=True)
    return next((p for p in newest_first if any(r.get("id") in ids for r in p["result"])), None)
