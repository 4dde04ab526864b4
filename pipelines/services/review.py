"""What FiftyOne shows of a workspace: every image with what people and the champion say about it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from annotate.review.sample import ReviewSample
from pipelines.datasets.relabel import in_published_classes
from pipelines.workspace.journal import Role
from pipelines.workspace.workspace import Workspace


def dataset_name(workspace: Workspace, *, shared: bool) -> str:
    """The workspace's name in FiftyOne, which allows few characters.

    Args:
        shared: the database may have data sets of other workspaces. Then it is no other workspace's name,
            whatever the titles; it stays the same when the workspace is moved.
    """
    name = "dsmoe-" + (re.sub(r"[^a-z0-9]+", "-", workspace.settings.title.lower()).strip("-") or "workspace")
    return f"{name}-{workspace.unique_id()}" if shared else name


def samples(workspace: Workspace) -> Iterator[ReviewSample]:
    """All usable images; tags say role, round and arm."""
    detections, book = workspace.predictions(), workspace.class_book()
    labelled = [*workspace.test_set(), *workspace.annotations().values()]
    truth = {p.image.key: in_published_classes(p, book).annotations for p in labelled}
    sent = {task.key: task for task in workspace.journal.tasks()}
    roles: tuple[tuple[Role, str], ...] = (("pool", "pool"), ("test", "test set"))
    for role, tag in roles:
        for image in workspace.images(role):
            task = sent.get(image.key)
            tags = (tag, f"round {task.round}", task.arm) if task else (tag,)
            yield ReviewSample(image, truth.get(image.key), detections.get(image.key), tags)
