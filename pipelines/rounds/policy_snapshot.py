"""Takes the snapshot of a workspace that the policy decides on; changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from dsmoe_core.errors import BoxError, ClassBookError
from dsmoe_core.schema import Annotation, LabelledImage
from pipelines.rounds.drift import arrival_stream, detect_drift, pool_in_order
from pipelines.rounds.policy import DriftSignal, PolicySnapshot
from pipelines.rounds.pool import pool
from pipelines.workspace.approval import approved_round
from pipelines.workspace.dataset_version import Corners, DatasetVersion, rounded_corners
from pipelines.workspace.journal import RoundRecord
from pipelines.workspace.relabel import relabel_image
from pipelines.workspace.workspace import Workspace
from prompts.class_book import ClassBook


class NewLabels(NamedTuple):
    """Labels that differ from those of the last training: images, and boxes that it did not have."""

    images: int
    boxes: int


def take_snapshot(workspace: Workspace, now: datetime | None = None) -> PolicySnapshot:
    """The snapshot of a workspace.

    Drift is looked for only if ``policy.drift`` is set, in the stored predictions.

    Args:
        now: with a time zone; None for the current time.

    Raises:
        PrerequisiteError: ``policy.drift`` is set and river is not installed.
    """
    policy, journal = workspace.settings.policy, workspace.journal
    now = now or datetime.now(UTC)
    records = journal.rounds()
    last = records[-1] if records else None
    tasks = [] if last is None else journal.tasks(last.round)
    harvests = journal.harvests()
    labelled, book = workspace.annotations(), workspace.class_book()
    new = new_labels(labelled, _last_trained(workspace, records), book)
    history = workspace.registry.history()
    drift: tuple[DriftSignal, ...] = ()
    if policy.drift:
        stream = arrival_stream(workspace, pool_in_order(workspace, policy.drift_images))
        drift = detect_drift(stream, delta=policy.drift_delta)
    return PolicySnapshot(
        now=now.astimezone(ZoneInfo(policy.timezone) if policy.timezone else None),
        round=None if last is None else last.round,
        state=None if last is None else last.state,
        sent=len(tasks),
        answered=sum(task.key in harvests for task in tasks),
        unlabelled=len(pool(workspace)),
        new_boxes=new.boxes,
        new_images=new.images,
        class_boxes=count_classes(labelled, book),
        champion_since=history[-1].at if history else None,
        last_closed=max((r.closed_at for r in records if r.closed_at), default=None),
        drift=drift,
        held=workspace.registry.held(),
        approved_round=approved_round(journal),
    )


def _last_trained(workspace: Workspace, records: list[RoundRecord]) -> DatasetVersion | None:
    """The dataset version of the last training, whether its model was promoted or refused."""
    for record in reversed(records):
        if record.result and record.result.get("dataset_version"):
            return workspace.dataset_version(record.result["dataset_version"])
    return None


def new_labels(
    labelled: Mapping[str, LabelledImage], trained: DatasetVersion | None, book: ClassBook
) -> NewLabels:
    """Labels that a dataset version does not have.

    Args:
        labelled: by image key.
        trained: None: all labels are new.
        book: class book whose names the labels get.
    """
    known = {} if trained is None else {item.key: item for item in trained.train}
    images = boxes = 0
    for key, image in labelled.items():
        now = Counter((_corners(a, image), a.label) for a in _renamed(image, book).annotations)
        old = known[key].boxes if key in known else ()
        before = Counter((b.box, _resolved(b.label, book)) for b in old)
        images += key not in known or now != before
        boxes += (now - before).total()
    return NewLabels(images, boxes)


def count_classes(labelled: Mapping[str, LabelledImage], book: ClassBook) -> dict[str, int]:
    """Labelled boxes by class of the class book; 0 for a class without any."""
    counts = Counter(a.label for image in labelled.values() for a in _renamed(image, book).annotations)
    return {name: counts[name] for name in book.vocabulary().names}


def _corners(annotation: Annotation, image: LabelledImage) -> Corners:
    """The corners as a dataset version has them; as they are where the box is outside its image."""
    try:
        box = annotation.box.clipped(image.image.width, image.image.height)
    except BoxError:
        box = annotation.box
    return rounded_corners(box)


def _resolved(label: str, book: ClassBook) -> str:
    """The name of a class in the book; the same name where the book lacks it."""
    try:
        return book.resolve(label)
    except ClassBookError:
        return label


def _renamed(image: LabelledImage, book: ClassBook) -> LabelledImage:
    """The image with the class names of the book; unchanged where the book lacks one."""
    try:
        return relabel_image(image, book.resolve)
    except ClassBookError:
        return image
