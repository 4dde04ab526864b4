"""Key metrics, the table of rounds, and expert use. Pure functions of a snapshot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from annotate.review.sample import expert_name, weights_vector
from dsmoe_core.data.import_account import ImportAccount
from dsmoe_core.evaluation.matching import IOU_THRESHOLD, pairwise_iou
from dsmoe_core.schema import Outcome
from pipelines.workspace.annotation_time import ALL
from pipelines.workspace.round_summary import RoundSummary
from ui.snapshot import Snapshot

Row = dict[str, Any]
ClassSource = Literal["pre-annotations", "annotations"]


class KeyMetric(NamedTuple):
    """One metric at the top of the rounds page.

    Attributes:
        change: difference to the value before, with its sign; None if there is none.
        help: text of the tooltip.
    """

    label: str
    value: str
    change: str | None = None
    help: str | None = None


def key_metrics(snapshot: Snapshot) -> list[KeyMetric]:
    """Quality of the model in use, number of labels, and share of accepted pre-annotations."""
    promoted = [row for row in snapshot.rounds if row.promoted and row.map50 is not None]
    # After a rollback the model in use is not the last promoted one.
    in_use = next((i for i in reversed(range(len(promoted))) if promoted[i].model == snapshot.champion), None)
    quality = None if in_use is None else promoted[in_use].map50
    before = promoted[in_use - 1].map50 if in_use else None
    accepted = [share for row in snapshot.rounds if (share := row.share(Outcome.ACCEPTED)) is not None]
    change = round(100 * (accepted[-1] - accepted[-2])) if len(accepted) > 1 else 0
    labelled = sum(key in snapshot.annotations for key in snapshot.images)
    boxes = sum(len(item.annotations) for item in snapshot.annotations.values())
    return [
        KeyMetric(
            "mAP@.5 of the model",
            "none yet" if quality is None else f"{quality:.2f}",
            None if quality is None or before is None else f"{quality - before:+.2f}",
            "of the model in use, on the fixed test set; the arrow compares it with the model before",
        ),
        KeyMetric("Images labelled", f"{labelled:,}", None, f"of {len(snapshot.images):,} in the workspace"),
        KeyMetric("Boxes labelled", f"{boxes:,}"),
        KeyMetric(
            "Pre-annotations accepted",
            f"{accepted[-1]:.0%}" if accepted else "none shown",
            f"{change:+} %-points" if change else None,
            "share of the last round's pre-annotated boxes that annotators accepted without a change",
        ),
        KeyMetric("Rounds", str(len(snapshot.rounds))),
    ]


def decision(row: RoundSummary) -> str:
    """The promotion gate's decision on a round's model, or the state of the round before that."""
    if row.promoted is not None:
        return "promoted" if row.promoted else "refused"
    if row.state == "open":
        return f"with the annotators: {row.answered} of {row.sent} back"
    return "in training" if row.state == "closing" else "being prepared"


def round_table(rounds: Sequence[RoundSummary]) -> list[Row]:
    """One row per round, oldest first; shares in percent, None where a share is not defined."""
    return [
        {
            "Round": row.round,
            "Images": row.images,
            "Boxes": row.boxes,
            "New": row.new_boxes,
            **{str(outcome).capitalize(): _percent(row.share(outcome)) for outcome in Outcome},
            "s/image": row.effort[ALL].per_image if ALL in row.effort else None,
            "s/box": row.effort[ALL].per_box if ALL in row.effort else None,
            "mAP@.5": row.map50,
            "mAP@.5:.95": row.map,
            "Decision": row.reason or decision(row),
        }
        for row in rounds
    ]


def account_table(accounts: Mapping[int, ImportAccount]) -> list[Row]:
    """One row per harvested round: what was taken, clipped and left out of its annotations."""
    return [
        {
            "Round": number,
            "Images back": account.images_in,
            "Labelled": account.images_taken,
            "Without a box": account.images_without_box,
            "Skipped or in doubt": account.images_left_out,
            "Boxes": account.boxes_in,
            "Taken": account.boxes_taken,
            "Converted": sum(account.conversions.values()),
            "Clipped": account.boxes_clipped,
            "Left out": account.boxes_left_out,
        }
        for number, account in sorted(accounts.items())
    ]


def expert_use(snapshot: Snapshot, source: ClassSource) -> dict[str, list[float]]:
    """By class, the share of its boxes at which each expert has the highest weight; classes in book order."""
    experts = count_experts(snapshot)
    boxes: dict[str, list[int]] = {}
    for key in snapshot.predictions:
        for label, expert in _box_experts(snapshot, key, source):
            boxes.setdefault(label, [0] * experts)[expert] += 1
    order = {name: index for index, name in enumerate(snapshot.classes)}
    names = sorted(boxes, key=lambda name: (order.get(name, len(order)), name))
    return {name: [count / sum(boxes[name]) for count in boxes[name]] for name in names}


def _box_experts(snapshot: Snapshot, key: str, source: ClassSource) -> list[tuple[str, int]]:
    """Class and expert of the pre-annotations of an image, or of its annotations.

    An annotated box has the expert of the detection that overlaps it most, and is left out where none
    overlaps it enough.
    """
    if source == "pre-annotations":
        return [(d.label, d.expert) for d in snapshot.pre_annotations(key) if d.expert is not None]
    detections = [d for d in snapshot.predictions[key].detections if d.expert is not None]
    annotations = snapshot.truth(key) or ()
    if not detections or not annotations:
        return []
    overlap = pairwise_iou([a.box for a in annotations], [d.box for d in detections])
    best = overlap.argmax(axis=1)
    return [
        (annotation.label, expert)
        for annotation, row, column in zip(annotations, overlap, best, strict=True)
        if row[column] >= IOU_THRESHOLD and (expert := detections[column].expert) is not None
    ]


def classes_of(snapshot: Snapshot, key: str, source: ClassSource) -> set[str]:
    """The classes on one image, by its pre-annotations or by its annotations."""
    if source == "annotations":
        return {a.label for a in snapshot.truth(key) or ()}
    return {d.label for d in snapshot.pre_annotations(key)}


def count_experts(snapshot: Snapshot) -> int:
    """Number of experts, up to the highest index that was ever selected."""
    predictions = snapshot.predictions.values()
    return 1 + max((max(p.routing.experts, default=-1) for p in predictions), default=-1)


def expert_usage_table(snapshot: Snapshot) -> list[Row]:
    """Per expert, the percentage of images it was selected for, and its mean weight over all images."""
    experts, total = count_experts(snapshot), len(snapshot.predictions)
    vectors = [weights_vector(p.routing, experts) for p in snapshot.predictions.values()]
    return [
        {
            "Expert": expert_name(i),
            "Selected for": 100 * sum(v[i] > 0 for v in vectors) / total,
            "Mean weight": sum(v[i] for v in vectors) / total,
        }
        for i in range(experts)
    ]


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def import_counts(account: ImportAccount) -> list[Row]:
    """Numbers of images and boxes in the labels, taken, clipped and left out."""
    return [
        {
            "": "Images",
            "In": account.images_in,
            "Taken": account.images_taken,
            "Clipped": 0,
            "Left out": account.images_left_out,
        },
        {
            "": "Boxes",
            "In": account.boxes_in,
            "Taken": account.boxes_taken,
            "Clipped": account.boxes_clipped,
            "Left out": account.boxes_left_out,
        },
    ]


def import_reasons(account: ImportAccount) -> list[Row]:
    """Number of entries for each reason, the most frequent first."""
    return [
        {"Entry": kind.value, "Action": action.value, "Reason": reason.value, "Count": count}
        for (kind, action, reason), count in account.by_reason().items()
    ]


def import_entries(account: ImportAccount, max_entries: int) -> list[Row]:
    """The first entries that were clipped or left out."""
    return [
        {
            "Entry": e.kind.value,
            "Image": e.image,
            "Place": e.where,
            "Action": e.action.value,
            "Reason": e.reason.value,
            "Values": e.detail,
        }
        for e in account.entries[:max_entries]
    ]
