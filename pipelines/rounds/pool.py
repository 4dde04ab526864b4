"""The unlabelled pool of a workspace, and why it is empty."""

from __future__ import annotations

from dsmoe_core.errors import WorkspaceError
from dsmoe_core.schema import ImageRecord
from pipelines.workspace.workspace import Workspace


def pool(workspace: Workspace) -> dict[str, ImageRecord]:
    """The unlabelled pool: images that were never sent out and have no labels, by key."""
    taken = {task.key for task in workspace.journal.tasks()} | set(workspace.journal.harvests())
    return {image.key: image for image in workspace.images("pool") if image.key not in taken}


def require_unlabelled(workspace: Workspace) -> None:
    """Require that an image is left to send out.

    Raises:
        WorkspaceError: none is; the message says where the images are.
    """
    if pool(workspace):
        return
    images = len(workspace.images("pool"))
    sent = len(workspace.journal.tasks())
    imported = images - sent
    causes = []
    if sent:
        causes.append(f"{sent} were sent out in {len(workspace.journal.rounds())} rounds")
    if imported:
        causes.append(f"{imported} have labels that were imported")
    where = f"of {images} images in the pool, {' and '.join(causes)}" if causes else "the pool has no image"
    others = (
        (len(workspace.images("test")), "in the test set"),
        (len(workspace.quarantine()), "in quarantine"),
    )
    where += "".join(f"; {count} are {place}" for count, place in others if count)
    raise WorkspaceError(
        f"no image is left to send out: {where}",
        f"Add images with `dsmoe add {workspace.path} --images DIR`, or stop here.",
    )
