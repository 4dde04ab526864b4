"""Which workspace a project belongs to.

Label Studio lets two projects have one title, and two workspaces in folders of the same name ask for the
same one. So whoever fills a project says so in its description, which people see and may write into too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dsmoe_core.errors import StudioError

_MARK = re.compile(r"\(dsmoe workspace ([0-9a-z]+)\)")


def with_owner(owner: str, before: str = "") -> str:
    """A description that names the owner, behind what it says already."""
    return " ".join(filter(None, (before, f"(dsmoe workspace {owner})" if owner else "")))


def owner_of(description: str) -> str | None:
    """Who it names, if anybody."""
    found = _MARK.search(description)
    return found[1] if found else None


def select_project(descriptions: Sequence[str], title: str, owner: str) -> int | None:
    """Which of the projects of one title to use: the owner's, else the first that is nobody's.

    Args:
        descriptions: of the projects, the oldest first.
        owner: "" takes the oldest, whosever it is.

    Returns:
        Its index; None where there is no project.

    Raises:
        StudioError: all are others'.
    """
    if not descriptions:
        return None
    owners: list[str | None] = [owner_of(text) for text in descriptions] if owner else [None]
    for wanted in (owner, None):
        if wanted in owners:
            return owners.index(wanted)
    raise StudioError(
        f"the project {title!r} is another workspace's, {owners[0]}; this one is {owner}",
        "Set another title in dsmoe.yaml; if that workspace is gone, delete the project in Label Studio.",
    )
