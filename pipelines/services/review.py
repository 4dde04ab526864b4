"""What FiftyOne shows of a workspace: every picture with what people and the champion say about it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from annotate.review.sample import ReviewSample
from pipelines.datasets.relabel import as_shown
from pipelines.workspace.journal import Role
from pipelines.workspace.workspace import Workspace


def dataset_name(workspace: Workspace, *, shared: bool) -> str:
    """The workspace's name in FiftyOne, which allows few characters.

    Args:
        shared: the database may have data sets of other workspaces. Then it is no other workspace's name,
            whatever the titles; it stays the same when the workspace is moved.
    """
    name = "dsmoe-" + (re.sub(r"[^a-z0-9]+", "-", workspace.settings.title.lower()).strip("-") or "workspace")
    return f"{name}-{workspace.mark()}" if shared else name


def samples(workspace: Workspace) -> Iterator[ReviewSample]:
    """All usable pictures; tags say role, round and arm."""
    findings, book = workspace.findings(), workspace.class_book()
    labelled = [*workspace.test_set(), *workspace.annotations().values()]
    truth = {p.picture.key: as_shown(p, book).annotations for p in labelled}
    sent = {task.key: task for task in workspace.journal.tasks()}
    roles: tuple[tuple[Role, str], ...] = (("pool", "pool"), ("test", "test set"))
    for role, tag in roles:
        for picture in workspace.pictures(role):
            task = sent.get(picture.key)
            tags = (tag, f"round {task.round}", task.arm) if task else (tag,)
            yield ReviewSample(picture, truth.get(picture.key), findings.get(picture.key), tags)
