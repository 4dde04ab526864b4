"""Pretrains the image encoder on the unlabelled images of a workspace, while people label the first round.

The warm start is written into the workspace and set for its next training from initial weights. The images
of the test set are not used. The workspace is locked only while its settings are written, so rounds can be
opened and closed meanwhile.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from dsmoe_core.config import TrainingConfig
from dsmoe_core.digest import content_id
from dsmoe_core.errors import DataError, DsmoeError, SettingsError
from pipelines.progress import ProgressReporter
from pipelines.settings.detector import DetectorSettings
from pipelines.settings.environment import Environment
from pipelines.settings.validation import validate_settings
from pipelines.settings.workspace import WorkspaceSettings
from pipelines.training.pretrain import (
    USER_IMAGES_LICENCE,
    Objective,
    train_unlabelled,
    unlabelled_provenance,
)
from pipelines.training.weights import install_imagenet_lite
from pipelines.workspace.registry import source_commit
from pipelines.workspace.workspace import Workspace

FILE = "warm-start.safetensors"
"""Name of the file in the workspace."""
SCRATCH = "scratch"
"""The entry ``start`` of a card for random weights; otherwise it is the hash of the initial weights."""


class WorkspaceWarmStart(NamedTuple):
    """A warm start of a workspace.

    Attributes:
        path: the file.
        images: number of images it was trained on.
        written: whether it was written by this call; otherwise the same call had made it before.
        champion: the model that the next round starts from instead; None: it starts from the file.
    """

    path: Path
    images: int
    written: bool
    champion: str | None


def pretrain_workspace(
    workspace: Workspace,
    training: TrainingConfig,
    objective: Objective,
    environment: Environment,
    progress: ProgressReporter,
) -> WorkspaceWarmStart:
    """Write the warm start of a workspace and set it in ``dsmoe.yaml``.

    It starts from the packaged warm start, where the workspace does. An interrupted call with the same
    arguments is resumed; the time spent before counts.

    Args:
        training: length and seed.

    Raises:
        SettingsError: the detector has no TinyViT encoder.
        DataError: the pool is empty.
        PrerequisiteError: the objective needs weights whose package is not installed.
        WorkspaceError: a file of an image is missing, or another process holds the workspace in the end.
    """
    from dsmoe_core.warm_start.checkpoint import read_card, save_warm_start

    settings = workspace.settings.detector
    _require_tiny_vit(settings)
    images = workspace.images("pool")
    if not images:
        raise DataError("the pool of the workspace is empty", "Add images with `dsmoe add`.")
    workspace.require_files(images)
    teacher = install_imagenet_lite(environment.weights, None).path if objective == "distill" else None
    initial, path = _initial_encoder(settings, workspace.path / FILE), workspace.path / FILE
    made: dict[str, Any] = {
        "model": settings.model.model_dump(mode="json"),
        "training": training.model_dump(mode="json"),
        "start": SCRATCH if initial is None else read_card(initial).sha256,
        "unlabelled": unlabelled_provenance(objective, images, workspace.intensity_max()),
    }
    made["plan"] = content_id(made)
    written = _card_value(path, "plan") != made["plan"]
    if written:
        network = train_unlabelled(
            objective,
            images,
            model=settings.model,
            training=training,
            folder=workspace.path / "cache" / "pretrain" / made["plan"],
            squares=workspace.path / "cache" / "squares",
            progress=progress,
            teacher=teacher,
            encoder_from=initial,
        )
        made |= {"commit": source_commit()}
        save_warm_start(path, network, size=settings.model.size, licence=USER_IMAGES_LICENCE, made=made)
    _use(workspace, path)
    return WorkspaceWarmStart(path, len(images), written, workspace.champion())


def _require_tiny_vit(settings: DetectorSettings) -> None:
    model = settings.model
    if settings.kind != "ds-moe" or model.backbone != "tiny-vit" or not model.mobile_sam:
        raise SettingsError(
            f"detector.kind is {settings.kind}, backbone {model.backbone}, row {model.ablation}; a warm "
            "start is for the TinyViT encoder of ds-moe, rows C to F",
            "Use a workspace with this encoder.",
        )


def _initial_encoder(settings: DetectorSettings, own: Path) -> Path | None:
    """The weights that the workspace started from before it had a warm start of its own."""
    from dsmoe_core.warm_start.checkpoint import shipped_path

    given = Path(settings.warm_start).expanduser() if settings.warm_start else None
    if settings.start != "warm" or (given == own and _card_value(own, "start") == SCRATCH):
        return None
    if given is not None and given != own:
        return given
    packaged = shipped_path(settings.model.size)
    return packaged if packaged.is_file() else None


def _card_value(path: Path, name: str) -> Any:
    """A value of the card of a warm start; None without one, or with a damaged one."""
    from dsmoe_core.warm_start.checkpoint import read_card

    try:
        return read_card(path).made.get(name)
    except DsmoeError:
        return None


def _use(workspace: Workspace, path: Path) -> None:
    """Set the file as the start of trainings, in the settings as they are now on disk."""
    with workspace.locked():
        file = workspace.path / "dsmoe.yaml"
        raw = WorkspaceSettings.read(file).model_dump()
        raw["detector"] |= {"start": "warm", "warm_start": str(path)}
        validate_settings(WorkspaceSettings, raw, str(file)).write(file)
