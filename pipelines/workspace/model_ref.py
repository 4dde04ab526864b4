"""What MODEL means on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from dsmoe_core.errors import ModelError
from pipelines.workspace.registry import CHAMPION
from pipelines.workspace.workspace import Workspace


class ModelRef(NamedTuple):
    """A model's folder.

    Attributes:
        workspace: the one that it is a model of; None for a folder from anywhere.
    """

    name: str
    folder: Path
    workspace: Workspace | None


def resolve_model(model: str, workspace: Workspace | None) -> ModelRef:
    """A model by its id in a workspace (or ``champion``), or by its folder.

    Raises:
        ModelError: there is no such model.
    """
    if workspace is not None:
        key = workspace.champion() if model == CHAMPION else model
        if key is not None and Path(key).name == key and workspace.registry.has(key):
            return ModelRef(key, workspace.registry.folder(key), workspace)
    folder = Path(model).expanduser()
    if folder.is_dir():
        return ModelRef(model, folder, None)
    known = ", ".join(card.id for card in workspace.registry.cards()) if workspace else ""
    place = f"in {workspace.path}, which has {known or 'none'}" if workspace else "a folder"
    raise ModelError(
        f"model {model!r} is not {place}",
        "Give a folder with model.json and model.safetensors, or --workspace and the id of a model in it.",
    )
