"""Marks a Label Studio project as owned by one workspace.

Label Studio allows several projects with the same title, and workspaces in folders of the same name use the
same title. So the owner is written into the project's description. Users see it there and may add text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dsmoe_core.errors import StudioError

_MARK = re.compile(r"\(dsmoe workspace ([0-9a-z]+)\)")


def with_owner(owner: str, description: str = "") -> str:
    """Append the owner mark to a project description. An empty owner adds nothing."""
    return " ".join(filter(None, (description, f"(dsmoe workspace {owner})" if owner else "")))


def owner_of(description: str) -> str | None:
    """The owner in a project description; None if there is none."""
    match = _MARK.search(description)
    return match[1] if match else None


def select_project(descriptions: Sequence[str], title: str, owner: str) -> int | None:
    """Select a project among those with the same title: the owner's, or the first without an owner.

    Args:
        descriptions: project descriptions, oldest project first.
        title: title of the projects, for the message.
        owner: "" selects the oldest project of any owner.

    Returns:
        Index into ``descriptions``; None if it is empty.

    Raises:
        StudioError: all projects belong to other workspaces.
    """
    if not descriptions:
        return None
    owners: list[str | None] = [owner_of(text) for text in descriptions] if owner else [None]
    for wanted in (owner, None):
        if wanted in owners:
            return owners.index(wanted)
    raise StudioError(
        f"the project {title!r} belongs to workspace {owners[0]}; this workspace is {owner}",
        "Set another title in dsmoe.yaml. If that workspace no longer exists, delete the project in Label "
        "Studio.",
    )
