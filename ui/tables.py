"""What the pages say in numbers about rounds and experts. Pure: no page, no drawing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from annotate.review.sample import expert_name, weights_vector
from dsmoe_core.schema import Outcome
from pipelines.workspace.annotation_time import ALL
from pipelines.workspace.round_summary import RoundSummary
from ui.snapshot import Snapshot

Row = dict[str, Any]


class KeyFigure(NamedTuple):
    """One number at the top of the page.

    Attributes:
        change: against the time before, with its sign; None where there is none.
        meaning: shown on demand.
    """

    label: str
    value: str
    change: str | None = None
    meaning: str | None = None


def key_figures(snapshot: Snapshot) -> list[KeyFigure]:
    """How good the model is, how much is labelled, and how much work the pre-annotations save."""
    promoted = [row for row in snapshot.rounds if row.promoted and row.map50 is not None]
    # The model in use need not be the last promoted one: somebody may have gone back.
    used = next((i for i in reversed(range(len(promoted))) if promoted[i].model == snapshot.champion), None)
    quality = None if used is None else promoted[used].map50
    before = promoted[used - 1].map50 if used else None
    kept = [share for row in snapshot.rounds if (share := row.share(Outcome.ACCEPTED)) is not None]
    more = round(100 * (kept[-1] - kept[-2])) if len(kept) > 1 else 0
    done = sum(key in snapshot.annotations for key in snapshot.images)
    boxes = sum(len(known.annotations) for known in snapshot.annotations.values())
    return [
        KeyFigure(
            "mAP@.5 of the model",
            "none yet" if quality is None else f"{quality:.2f}",
            None if quality is None or before is None else f"{quality - before:+.2f}",
            "of the model in use, on the fixed test set; the arrow compares it with the model before",
        ),
        KeyFigure("Images labelled", f"{done:,}", None, f"of {len(snapshot.images):,} in the workspace"),
        KeyFigure("Boxes labelled", f"{boxes:,}"),
        KeyFigure(
            "Pre-annotations kept as is",
            f"{kept[-1]:.0%}" if kept else "none shown",
            f"{more:+} %-points" if more else None,
            "share of the last round's pre-annotated boxes that people accepted without a change",
        ),
        KeyFigure("Rounds", str(len(snapshot.rounds))),
    ]


def decision(row: RoundSummary) -> str:
    """The verdict on a round's model, or what the round is waiting for."""
    if row.promoted is not None:
        return "promoted" if row.promoted else "refused"
    if row.state == "open":
        return f"with the annotators: {row.answered} of {row.sent} back"
    return "in training" if row.state == "closing" else "being prepared"


def round_table(rounds: Sequence[RoundSummary]) -> list[Row]:
    """One row per round, oldest first; shares in per cent, None where there is nothing to share."""
    return [
        {
            "Round": row.round,
            "Images": row.images,
            "Boxes": row.boxes,
            "New": row.new_boxes,
            **{str(outcome).capitalize(): _per_cent(row.share(outcome)) for outcome in Outcome},
            "s/image": row.effort[ALL].per_image if ALL in row.effort else None,
            "s/box": row.effort[ALL].per_box if ALL in row.effort else None,
            "mAP@.5": row.map50,
            "mAP@.5:.95": row.map,
            "Decision": row.reason or decision(row),
        }
        for row in rounds
    ]


def expert_use(snapshot: Snapshot, by: Literal["detections", "annotations"]) -> dict[str, list[float]]:
    """Mean weight of every expert over the images that show a class, for each class that any image shows.

    A router weighs experts per image, so an image with two classes counts for both.
    """
    experts = count_experts(snapshot)
    sums: dict[str, list[float]] = {}
    images: dict[str, int] = {}
    for key, found in snapshot.detections.items():
        weights = weights_vector(found.routing, experts)
        for name in classes_of(snapshot, key, by):
            total = sums.setdefault(name, [0.0] * experts)
            sums[name] = [a + b for a, b in zip(total, weights, strict=True)]
            images[name] = images.get(name, 0) + 1
    order = {name: place for place, name in enumerate(snapshot.classes)}
    shown = sorted(sums, key=lambda name: (order.get(name, len(order)), name))
    return {name: [value / images[name] for value in sums[name]] for name in shown}


def classes_of(snapshot: Snapshot, key: str, by: Literal["detections", "annotations"]) -> set[str]:
    """The classes on one image, as the detector or as people see it."""
    if by == "annotations":
        return {a.label for a in snapshot.truth(key) or ()}
    return {f.label for f in snapshot.shown(key)}


def count_experts(snapshot: Snapshot) -> int:
    """Experts up to the highest one that ever looked at an image."""
    return 1 + max((max(f.routing.experts, default=-1) for f in snapshot.detections.values()), default=-1)


def load(snapshot: Snapshot) -> list[Row]:
    """Per expert: on what share of the images it looks, and its mean weight over all images."""
    experts, total = count_experts(snapshot), len(snapshot.detections)
    vectors = [weights_vector(found.routing, experts) for found in snapshot.detections.values()]
    return [
        {
            "Expert": expert_name(i),
            "Looks at": 100 * sum(v[i] > 0 for v in vectors) / total,
            "Mean weight": sum(v[i] for v in vectors) / total,
        }
        for i in range(experts)
    ]


def _per_cent(share: float | None) -> float | None:
    return None if share is None else 100 * share
