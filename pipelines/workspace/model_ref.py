"""Resolves the MODEL argument of commands to a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from dsmoe_core.errors import ModelError
from pipelines.workspace.registry import CHAMPION
from pipelines.workspace.workspace import Workspace


class ModelRef(NamedTuple):
    """A model's folder.

    Attributes:
        workspace: the workspace that the model is registered in; None for any other folder.
    """

    name: str
    folder: Path
    workspace: Workspace | None


def resolve_model(model: str, workspace: Workspace | None) -> ModelRef:
    """The model of an id in a workspace, of the name ``champion``, or of a folder.

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
    if workspace is None:
        problem = f"model {model!r} is not a folder"
    else:
        ids = ", ".join(card.id for card in workspace.registry.cards()) or "none"
        problem = f"model {model!r} is not in {workspace.path}, which has {ids}"
    raise ModelError(
        problem,
        "Give a folder with model.json and model.safetensors, or --workspace and the id of a model in it.",
    )
