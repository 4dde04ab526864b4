"""Records of labelled images, from which the control arm and the blind audit are estimated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from dsmoe_core.evaluation.matching import UNMATCHED, match_any_class, pairwise_iou
from dsmoe_core.schema import Annotation, Arm, Detection, Harvest, Outcome, Prediction
from pipelines.workspace.annotation_time import by_person
from pipelines.workspace.journal import SentTask


@dataclass(frozen=True, slots=True)
class AuditImage:
    """One labelled image of a round that a model selected.

    Attributes:
        blind: it was shown without pre-annotations.
        corrections: number of boxes that were added, deleted, relabelled or moved.
        accepted: number of pre-annotations that were accepted without a change.
        shown: number of pre-annotations; 0 for a blind image.
        boxes: number of annotated boxes.
        seconds: annotation time; None if it is unknown or that of a program.
        hidden: number of pre-annotations that a blind image would have had; None if that is unknown, and
            for an image that is not blind.
        agreed: how many of these the annotator drew: same class, IoU of 0.5 or more.
    """

    arm: Arm
    blind: bool
    corrections: int
    accepted: int
    shown: int
    boxes: int
    seconds: float | None = None
    hidden: int | None = None
    agreed: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON values."""
        return {**asdict(self), "arm": str(self.arm)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_dict`."""
        return cls(**{**values, "arm": Arm(values["arm"])})


def audit_images(
    tasks: Iterable[SentTask], harvests: Mapping[str, Harvest], hidden: Mapping[str, Prediction]
) -> list[AuditImage]:
    """The records of the tasks that came back labelled; none for a seed round.

    Args:
        harvests: by image key.
        hidden: what the blind images would have been shown, by image key, with the present class names.
    """
    return [
        _record(task, harvest, hidden.get(task.key))
        for task in tasks
        if task.arm is not Arm.SEED and (harvest := harvests.get(task.key)) is not None and harvest.labelled
    ]


def _record(task: SentTask, harvest: Harvest, hidden: Prediction | None) -> AuditImage:
    counts = {outcome: harvest.outcomes.get(outcome, 0) for outcome in Outcome}
    blind = task.version is None
    known = blind and hidden is not None
    return AuditImage(
        arm=task.arm,
        blind=blind,
        corrections=sum(counts.values()) - counts[Outcome.ACCEPTED],
        accepted=counts[Outcome.ACCEPTED],
        shown=sum(counts.values()) - counts[Outcome.ADDED],
        boxes=len(harvest.annotations),
        seconds=harvest.seconds if by_person(harvest) else None,
        hidden=len(hidden.detections) if known and hidden else None,
        agreed=matches(hidden.detections, harvest.annotations) if known and hidden else None,
    )


def matches(
    detections: Sequence[Detection] | Sequence[Annotation], boxes: Sequence[Detection] | Sequence[Annotation]
) -> int:
    """Number of one-to-one matches of boxes of the same class with an IoU of 0.5 or more."""
    iou = pairwise_iou([d.box for d in detections], [b.box for b in boxes])
    same = match_any_class(iou, [d.label for d in detections], [b.label for b in boxes]).same_class
    return int((same != UNMATCHED).sum())
