"""Summary of each round: labelled images, corrected pre-annotations, annotation effort, model metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from statistics import fmean
from typing import Any

from dsmoe_core.schema import Harvest, Outcome, Prediction
from pipelines.workspace.annotation_time import Effort, effort
from pipelines.workspace.audit import AuditImage, audit_images
from pipelines.workspace.journal import RoundRecord, SentTask, State


@dataclass(frozen=True, slots=True)
class ChampionAgreement:
    """Agreement of two successive champions on unlabelled images.

    Attributes:
        before, after: model ids.
        f1: mean over the images of the F1 of their detections, 0 to 1.
        low, high: 95 % interval; None with one image.
    """

    before: str
    after: str
    images: int
    f1: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class RoundSummary:
    """Summary of one round.

    Attributes:
        sent: images sent out in this round.
        answered: images that came back, labelled, skipped or in doubt.
        new_images, new_boxes: labelled in this round.
        images, boxes: labelled up to and including this round.
        accepted, moved, relabelled, deleted: number of pre-annotated boxes of this round with this outcome.
        added: number of boxes of this round that annotators drew themselves.
        map50, map: of this round's model on the fixed test set, 0 to 1; None before its evaluation.
        promoted: None before the decision.
        doubtful: images of this round that came back in doubt; they count as answered, not as labelled.
        agreement: between several annotators of an image, 0 to 1, mean over such images; None without any.
        effort: annotation time by kind of image, see pipelines.workspace.annotation_time.
        class_book: published version when the round was opened.
        audit: the labelled images of this round, for the control arm and the blind audit.
        champions: agreement of this round's model with the champion before; None if it was not promoted.
    """

    round: int
    state: State
    sent: int
    answered: int
    images: int
    boxes: int
    new_images: int
    new_boxes: int
    accepted: int
    moved: int
    relabelled: int
    deleted: int
    added: int
    map50: float | None
    map: float | None
    promoted: bool | None
    reason: str | None
    model: str | None
    dataset_version: str | None
    opened_at: datetime
    closed_at: datetime | None
    doubtful: int = 0
    agreement: float | None = None
    effort: Mapping[str, Effort] = field(default_factory=dict)
    class_book: str | None = None
    audit: tuple[AuditImage, ...] = ()
    champions: ChampionAgreement | None = None

    @property
    def checked(self) -> int:
        """Number of pre-annotated boxes that an annotator has checked."""
        return self.accepted + self.moved + self.relabelled + self.deleted

    def share(self, outcome: Outcome) -> float | None:
        """Share of the checked pre-annotations with this outcome; for ADDED, share of the new boxes.

        None if there are no such boxes.
        """
        total = self.new_boxes if outcome is Outcome.ADDED else self.checked
        return int(getattr(self, str(outcome))) / total if total else None

    def as_effort(self) -> dict[str, Any]:
        """State and effort of the round; not part of ``as_result``, because timings are not reproducible."""
        return {
            "state": self.state,
            "class_book": self.class_book,
            "answered": self.answered,
            "doubtful": self.doubtful,
            "agreement": self.agreement,
            "effort": {kind: asdict(effort) for kind, effort in self.effort.items()},
            "arms": self.arms(),
        }

    def arms(self) -> dict[str, dict[str, Any]]:
        """Images, corrections per image and boxes per image of each arm and of the blind images."""
        groups: dict[str, list[AuditImage]] = {}
        for image in self.audit:
            groups.setdefault("blind" if image.blind else str(image.arm), []).append(image)
        return {
            name: {
                "images": len(images),
                "corrections_per_image": round(fmean(i.corrections for i in images), 3),
                "boxes_per_image": round(fmean(i.boxes for i in images), 3),
            }
            for name, images in sorted(groups.items())
        }

    def as_result(self) -> dict[str, Any]:
        """The round as JSON values; unknown values are absent."""
        row: dict[str, Any] = {
            "round": self.round,
            "images": self.images,
            "boxes": self.boxes,
            "new_images": self.new_images,
            "new_boxes": self.new_boxes,
        }
        optional: dict[str, Any] = {str(outcome): self.share(outcome) for outcome in Outcome}
        optional |= {"map50": self.map50, "map": self.map, "promoted": self.promoted, "reason": self.reason}
        return row | {
            name: round(value, 4) if isinstance(value, float) else value
            for name, value in optional.items()
            if value is not None
        }


@dataclass(frozen=True, slots=True)
class Note:
    """An image with a doubt or a note, for the domain expert.

    Attributes:
        task_id: in Label Studio; None until it is known.
        doubt: "unsure" or "needs an expert"; None if the image counts as labelled and only has a note.
    """

    key: str
    round: int
    task_id: int | None
    doubt: str | None
    note: str


def notes(tasks: Iterable[SentTask], harvests: Mapping[str, Harvest]) -> list[Note]:
    """Images in doubt, then images with only a note, each in the order they were sent."""
    result = [
        Note(task.key, task.round, task.task_id, harvest.doubt, harvest.note)
        for task in tasks
        if (harvest := harvests.get(task.key)) is not None and (harvest.doubt or harvest.note)
    ]
    return sorted(result, key=lambda note: note.doubt is None)


def count_round(
    tasks: Iterable[SentTask], harvests: Mapping[str, Harvest], hidden: Mapping[str, Prediction] | None = None
) -> dict[str, Any]:
    """The numbers of a round's summary that come from its annotations, as JSON values.

    Images that were skipped or came back in doubt count as answered only.

    Args:
        hidden: what the blind images would have been shown, by image key; None: unknown.
    """
    tasks = list(tasks)
    answered = [harvests[task.key] for task in tasks if task.key in harvests]
    labelled = [harvest for harvest in answered if harvest.labelled]
    outcomes: Counter[Outcome] = Counter()
    for harvest in labelled:
        outcomes.update(harvest.outcomes)
    agreements = [h.agreement for h in answered if h.agreement is not None]
    return {
        **{str(outcome): outcomes[outcome] for outcome in Outcome},
        "sent": len(tasks),
        "answered": len(answered),
        "new_images": len(labelled),
        "new_boxes": sum(len(h.annotations) for h in labelled),
        "doubtful": sum(h.doubt is not None for h in answered),
        "agreement": fmean(agreements) if agreements else None,
        "effort": {kind: asdict(e) for kind, e in effort(answered).items()},
        "audit": [image.to_dict() for image in audit_images(tasks, harvests, hidden or {})],
    }


def summarize_rounds(
    records: Sequence[RoundRecord],
    tasks: Sequence[SentTask],
    harvests: Mapping[str, Harvest],
    initial: tuple[int, int] = (0, 0),
) -> list[RoundSummary]:
    """Summaries of all rounds, oldest first. A closed round keeps the numbers it was closed with.

    Args:
        initial: images and boxes that were labelled before round 0.
    """
    summaries = []
    images, boxes = initial
    for record in records:
        result = dict(record.result or {})
        counts = result.get("counts") or count_round((t for t in tasks if t.round == record.round), harvests)
        # A closed round's totals include images of earlier rounds that came back late.
        images = result.get("images", images + counts["new_images"])
        boxes = result.get("boxes", boxes + counts["new_boxes"])
        decision: dict[str, Any] = {
            name: result.get(name) for name in ("map50", "map", "promoted", "reason", "model")
        }
        efforts = {kind: Effort(**e) for kind, e in counts.get("effort", {}).items()}
        audit = tuple(map(AuditImage.from_dict, counts.get("audit", ())))
        champions = result.get("champions")
        summaries.append(
            RoundSummary(
                round=record.round,
                state=record.state,
                images=images,
                boxes=boxes,
                dataset_version=result.get("dataset_version"),
                class_book=record.class_book,
                opened_at=record.opened_at,
                closed_at=record.closed_at,
                champions=ChampionAgreement(**champions) if champions else None,
                **(counts | {"effort": efforts, "audit": audit}),
                **decision,
            )
        )
    return summaries


def explain_rounds(rows: Sequence[RoundSummary]) -> list[str]:
    """One sentence for each round whose model was refused, or is not better than the last promoted one."""
    sentences = []
    best: tuple[int, float] | None = None
    for row in rows:
        if row.map is None:
            continue
        if best is not None and row.map <= best[1]:
            loss = best[1] - row.map
            change = f"lost {loss:.3f}" if loss >= 0.0005 else "gained nothing"
            outcome = (
                "it became champion nevertheless"
                if row.promoted
                else f"round {best[0]}'s model stays champion"
            )
            sentences.append(
                f"Round {row.round} (mAP@.5:.95 {row.map:.3f}) is not better than round {best[0]} "
                f"({best[1]:.3f}): trained on {row.new_boxes} more boxes, the model {change} "
                f"on the test set, so {outcome}."
            )
        elif not row.promoted:  # the gain was too small, or the champion was promoted by hand
            sentences.append(f"Round {row.round}'s model did not become champion; {row.reason}.")
        if row.promoted:
            best = (row.round, row.map)
    return sentences
