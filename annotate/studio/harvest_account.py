"""Account of one harvested task: which regions were taken, clipped or left out, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from annotate.studio.regions import ReadRegions
from dsmoe_core.data.import_account import (
    AccountEntry,
    Action,
    Conversion,
    ImportAccount,
    Kind,
    LeftOutImage,
    Reason,
)


def account_of_task(
    task: Mapping[str, Any],
    annotations: Sequence[tuple[Mapping[str, Any], ReadRegions]],
    *,
    skipped: bool,
    doubt: str | None,
    note: str,
) -> ImportAccount:
    """Account of an annotated task.

    An image that was skipped or is in doubt is left out with all its boxes.

    Args:
        annotations: the annotations that count, with their regions, before the consensus merges them.
        note: says why the image is in doubt.
    """
    name = str(task["data"].get("name") or task["data"]["key"])
    entries: list[AccountEntry] = []
    conversions: Counter[Conversion] = Counter()
    for annotation, read in annotations:
        entries += _entries(name, f"task {task['id']}, annotation {annotation['id']}", read)
        conversions.update(read.conversions)
    boxes_in = sum(read.total for _, read in annotations)
    account = ImportAccount(
        images_in=1,
        images_taken=1,
        images_without_box=int(not any(read.regions for _, read in annotations)),
        boxes_in=boxes_in,
        boxes_taken=boxes_in - len(entries),
        entries=tuple(entries),
        conversions=dict(conversions),
    )
    if not skipped and doubt is None:
        return account
    boxes = account.boxes_taken + account.boxes_clipped
    reason = Reason.SKIPPED if skipped else Reason.DOUBTFUL
    left_out = LeftOutImage(
        name, boxes, reason, f"task {task['id']}", " ".join((note or doubt or "").split())
    )
    return account.without_images([left_out])


def _entries(image: str, where: str, read: ReadRegions) -> Iterator[AccountEntry]:
    """The regions of one annotation that were clipped or left out."""
    for region, corners in read.clipped.items():
        place = f"{where}, region {region}"
        yield AccountEntry(Kind.BOX, Action.CLIPPED, image, place, Reason.OVER_EDGE, corners)
    for region, reason, problem in read.left_out:
        detail = "" if problem == reason else problem
        yield AccountEntry(Kind.BOX, Action.LEFT_OUT, image, f"{where}, region {region}", reason, detail)
