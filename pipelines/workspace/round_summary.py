"""Rounds as people look at them.

What was labelled, what happened to the pre-annotations, how the model fared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from statistics import fmean
from typing import Any

from dsmoe_core.schema import Harvest, Outcome
from pipelines.workspace.annotation_time import Effort, effort
from pipelines.workspace.journal import RoundRecord, SentTask, State


@dataclass(frozen=True, slots=True)
class RoundSummary:
    """One round.

    Attributes:
        sent: images sent out in this round.
        answered: those that came back, labelled or skipped.
        new_images, new_boxes: labelled in this round.
        images, boxes: labelled up to and with this round.
        accepted, moved, relabelled, deleted: pre-annotated boxes of this round, counted.
        added: boxes drawn by hand in this round, counted.
        map50, map: of this round's model on the fixed test set, 0 to 1; None until it was judged.
        promoted: None until it was decided.
        doubtful: images of this round that came back in doubt; they are answered, not labelled.
        agreement: of several annotators of an image, 0 to 1, mean over such images; None where none were.
        effort: see pipelines.workspace.annotation_time.
        class_book: version that the round was opened with; None of rounds from before this was noted.
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

    @property
    def shown(self) -> int:
        """Pre-annotated boxes that an annotator has judged."""
        return self.accepted + self.moved + self.relabelled + self.deleted

    def share(self, outcome: Outcome) -> float | None:
        """Share of the shown pre-annotations with this outcome; for ADDED, of the new boxes.

        None of nothing.
        """
        of = self.new_boxes if outcome is Outcome.ADDED else self.shown
        return int(getattr(self, str(outcome))) / of if of else None

    def as_effort(self) -> dict[str, Any]:
        """How the round stands and what it cost; not part of ``as_result``, for times never come twice."""
        return {
            "state": self.state,
            "class_book": self.class_book,
            "answered": self.answered,
            "doubtful": self.doubtful,
            "agreement": self.agreement,
            "effort": {kind: asdict(spent) for kind, spent in self.effort.items()},
        }

    def as_result(self) -> dict[str, Any]:
        """The round as benchmarks/results/demo.json has it; what was not measured is absent."""
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
    """An image that somebody who knows more should look at.

    Attributes:
        task_id: in Label Studio; None until it is known.
        doubt: "unsure", "needs an expert"; None where the image counts and has a note only.
    """

    key: str
    round: int
    task_id: int | None
    doubt: str | None
    note: str


def notes(tasks: Iterable[SentTask], harvests: Mapping[str, Harvest]) -> list[Note]:
    """Images in doubt and images with a note, in doubt first, then in the order they were sent."""
    found = [
        Note(task.key, task.round, task.task_id, harvest.doubt, harvest.note)
        for task in tasks
        if (harvest := harvests.get(task.key)) is not None and (harvest.doubt or harvest.note)
    ]
    return sorted(found, key=lambda note: note.doubt is None)


def count_round(tasks: Iterable[SentTask], harvests: Mapping[str, Harvest]) -> dict[str, Any]:
    """What people did in a round, from what came back for its tasks, as JSON can hold it.

    Images that were skipped or came back in doubt are answered only.
    """
    tasks = list(tasks)
    back = [harvests[task.key] for task in tasks if task.key in harvests]
    kept = [h for h in back if h.labelled]
    outcomes: Counter[Outcome] = Counter()
    for harvest in kept:
        outcomes.update(harvest.outcomes)
    agreed = [h.agreement for h in back if h.agreement is not None]
    return {
        **{str(outcome): outcomes[outcome] for outcome in Outcome},
        "sent": len(tasks),
        "answered": len(back),
        "new_images": len(kept),
        "new_boxes": sum(len(h.annotations) for h in kept),
        "doubtful": sum(h.doubt is not None for h in back),
        "agreement": fmean(agreed) if agreed else None,
        "effort": {kind: asdict(spent) for kind, spent in effort(back).items()},
    }


def summarize_rounds(
    records: Sequence[RoundRecord],
    tasks: Sequence[SentTask],
    harvests: Mapping[str, Harvest],
    before: tuple[int, int] = (0, 0),
) -> list[RoundSummary]:
    """All rounds, oldest first. A closed round keeps the figures it closed with.

    Args:
        before: images and boxes that came labelled, before round 0.
    """
    rows = []
    images, boxes = before
    for record in records:
        result = dict(record.result or {})
        counts = result.get("counts") or count_round((t for t in tasks if t.round == record.round), harvests)
        images = result.get("images", images + counts["new_images"])  # late ones of old rounds count too
        boxes = result.get("boxes", boxes + counts["new_boxes"])
        verdict: dict[str, Any] = {
            name: result.get(name) for name in ("map50", "map", "promoted", "reason", "model")
        }
        rows.append(
            RoundSummary(
                round=record.round,
                state=record.state,
                images=images,
                boxes=boxes,
                dataset_version=result.get("dataset_version"),
                class_book=record.class_book,
                opened_at=record.opened_at,
                closed_at=record.closed_at,
                **(counts | {"effort": {kind: Effort(**e) for kind, e in counts.get("effort", {}).items()}}),
                **verdict,
            )
        )
    return rows


def explain_rounds(rows: Sequence[RoundSummary]) -> list[str]:
    """Of each judged round that is not better than the last promoted one, or was refused: why, in a line."""
    said = []
    best: tuple[int, float] | None = None
    for row in rows:
        if row.map is None:
            continue
        if best is not None and row.map <= best[1]:
            lost = best[1] - row.map
            change = f"lost {lost:.3f}" if lost >= 0.0005 else "gained nothing"
            fate = (
                "it became champion all the same"
                if row.promoted
                else f"round {best[0]}'s model stays champion"
            )
            said.append(
                f"Round {row.round} (mAP@.5:.95 {row.map:.3f}) is not better than round {best[0]} "
                f"({best[1]:.3f}): trained on {row.new_boxes} more boxes, the model {change} "
                f"on the test set, so {fate}."
            )
        elif not row.promoted:  # better than that one, but not by enough, or than a champion promoted by hand
            said.append(f"Round {row.round}'s model did not become champion; {row.reason}.")
        if row.promoted:
            best = (row.round, row.map)
    return said
