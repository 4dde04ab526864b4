"""The samples of a workspace for FiftyOne: every image with its annotations and the champion's prediction."""

from __future__ import annotations

import re
from collections.abc import Iterator

from annotate.review.sample import ReviewSample
from pipelines.workspace.journal import Role
from pipelines.workspace.relabel import or_keep, relabel_image
from pipelines.workspace.workspace import Workspace


def dataset_name(workspace: Workspace, *, shared: bool) -> str:
    """Name of the workspace's data set in FiftyOne: lower-case letters, digits and hyphens.

    Args:
        workspace: its title becomes the name.
        shared: the database is used by other workspaces too. The name then ends with an id that no other
            workspace has and that stays the same when the workspace is moved.
    """
    name = "dsmoe-" + (re.sub(r"[^a-z0-9]+", "-", workspace.settings.title.lower()).strip("-") or "workspace")
    return f"{name}-{workspace.unique_id()}" if shared else name


def review_samples(workspace: Workspace) -> Iterator[ReviewSample]:
    """All images of the pool and the test set, with tags for role, round and arm."""
    predictions, book = workspace.predictions(), workspace.class_book()
    labelled = [*workspace.test_set(), *workspace.annotations().values()]
    truth = {p.image.key: relabel_image(p, or_keep(book)).annotations for p in labelled}
    sent = {task.key: task for task in workspace.journal.tasks()}
    roles: tuple[tuple[Role, str], ...] = (("pool", "pool"), ("test", "test set"))
    for role, tag in roles:
        for image in workspace.images(role):
            task = sent.get(image.key)
            tags = (tag, f"round {task.round}", task.arm) if task else (tag,)
            yield ReviewSample(image, truth.get(image.key), predictions.get(image.key), tags)
