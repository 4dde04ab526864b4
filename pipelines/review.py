"""What FiftyOne shows of a workspace: every picture with what people and the champion say about it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from annotate.review.sample import ReviewSample
from pipelines.journal import Role
from pipelines.workspace import Workspace


def dataset_name(workspace: Workspace) -> str:
    """The workspace's name in FiftyOne, which allows few characters."""
    return "dsmoe-" + (re.sub(r"[^a-z0-9]+", "-", workspace.settings.title.lower()).strip("-") or "workspace")


def samples(workspace: Workspace) -> Iterator[ReviewSample]:
    """All usable pictures; tags say role, round and arm."""
    findings = workspace.findings()
    truth = {p.picture.key: p.annotations for p in workspace.test_set()}
    truth |= {key: p.annotations for key, p in workspace.annotations().items()}
    sent = {task.key: task for task in workspace.journal.tasks()}
    roles: tuple[tuple[Role, str], ...] = (("pool", "pool"), ("test", "test set"))
    for role, tag in roles:
        for picture in workspace.pictures(role):
            task = sent.get(picture.key)
            tags = (tag, f"round {task.round}", task.arm) if task else (tag,)
            yield ReviewSample(picture, truth.get(picture.key), findings.get(picture.key), tags)
