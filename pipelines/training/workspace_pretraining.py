"""Pretrains the image encoder on the unlabelled images of a workspace, while people label the first round.

The warm start is written into the workspace and set for its next training from initial weights. The images
of the test set are not used. The workspace is locked only while its settings are written, so rounds can be
opened and closed meanwhile.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from dsmoe_core.atomic import atomic_write
from dsmoe_core.config import TrainingConfig
from dsmoe_core.digest import content_id
from dsmoe_core.errors import DataError, DsmoeError, PrerequisiteError, SettingsError
from pipelines.detectors.ds_moe import image_cache, initial_weights
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
INITIAL_FILE = "warm-start-initial.safetensors"
"""Name of the copy of a user's file that the warm start was trained from."""
SCRATCH, MOBILE_SAM = "scratch", "mobile-sam"
"""Entries ``start`` of a card for random and MobileSAM's weights; else it is the hash of a warm start."""


class WorkspaceWarmStart(NamedTuple):
    """A warm start of a workspace.

    Attributes:
        path: the file.
        start: file of the weights that it was trained from; None: random weights.
        images: number of images it was trained on.
        written: whether it was written by this call; otherwise the same call had made it before.
        champion: the model that the next round starts from instead; None: it starts from the file.
    """

    path: Path
    start: Path | None
    images: int
    written: bool
    champion: str | None


class _Start(NamedTuple):
    """The weights that a pretraining starts from.

    Attributes:
        name: entry ``start`` of the card.
        path: the file; None: random weights.
    """

    name: str
    path: Path | None


def pretrain_workspace(
    workspace: Workspace,
    training: TrainingConfig,
    objective: Objective,
    environment: Environment,
    progress: ProgressReporter,
) -> WorkspaceWarmStart:
    """Write the warm start of a workspace and set it in ``dsmoe.yaml``.

    It starts from the initial weights that the workspace had before it had a warm start of its own. An
    interrupted call with the same arguments is resumed; the time spent before counts.

    Args:
        training: length and seed.

    Raises:
        SettingsError: the detector has no TinyViT encoder.
        DataError: the pool is empty.
        PrerequisiteError: weights to start from, or to learn from, are missing.
        ModelError: the weights to start from are damaged.
        WorkspaceError: a file of an image is missing, or another process holds the workspace in the end.
    """
    from dsmoe_core.warm_start.checkpoint import save_warm_start

    settings, path = workspace.settings.detector, workspace.path / FILE
    _require_tiny_vit(settings)
    images, model = workspace.images("pool"), settings.model
    if not images:
        raise DataError("the pool of the workspace is empty", "Add images with `dsmoe add`.")
    workspace.require_files(images)
    teacher = install_imagenet_lite(environment.weights, None).path if objective == "distill" else None
    start = _initial_start(workspace, environment)
    made: dict[str, Any] = {
        "model": model.model_dump(mode="json"),
        "training": training.model_dump(mode="json"),
        "start": start.name,
        "unlabelled": unlabelled_provenance(objective, images, workspace.intensity_max(), model.tiles),
    }
    made["plan"] = content_id(made)
    written = not _is_made(path, made["plan"])
    if written:
        network = train_unlabelled(
            objective,
            images,
            model=model,
            training=training,
            folder=workspace.path / "cache" / "pretrain" / made["plan"],
            cache=image_cache(workspace),
            progress=progress,
            teacher=teacher,
            encoder_from=start.path,
        )
        made |= {"commit": source_commit()}
        save_warm_start(path, network, size=model.size, licence=USER_IMAGES_LICENCE, made=made)
    _use(workspace)
    return WorkspaceWarmStart(path, start.path, len(images), written, workspace.champion())


def _require_tiny_vit(settings: DetectorSettings) -> None:
    model = settings.model
    if settings.kind != "ds-moe" or model.backbone != "tiny-vit" or not model.mobile_sam:
        raise SettingsError(
            f"detector.kind is {settings.kind}, backbone {model.backbone}, row {model.ablation}; a warm "
            "start is for the TinyViT encoder of ds-moe, rows C to F",
            "Make the workspace with `dsmoe init --start warm`, or with `--start scratch`.",
        )


def _initial_start(workspace: Workspace, environment: Environment) -> _Start:
    """The initial weights of the workspace. A user's file is copied into it, for later pretrainings.

    Raises:
        PrerequisiteError: a file is missing, or it is not known what the own warm start was trained from.
        ModelError: a warm start is damaged.
    """
    from dsmoe_core.warm_start.checkpoint import read_card

    settings = workspace.settings.detector
    given = settings.warm_start_file(workspace.path)
    if given == workspace.path / FILE:
        return _recorded_start(workspace, environment)
    path = initial_weights(settings.start, settings.model.size, environment, given)
    if path is None or settings.start == MOBILE_SAM:
        return _Start(settings.start, path)
    name = read_card(path).sha256
    return _Start(name, path if given is None else _copied(path, workspace.path / INITIAL_FILE))


def _recorded_start(workspace: Workspace, environment: Environment) -> _Start:
    """The weights that the workspace's own warm start was trained from, by its card.

    Raises:
        PrerequisiteError: there is no card, or no file with the hash in it.
    """
    from dsmoe_core.warm_start.checkpoint import read_card, read_unchecked_card, shipped_path

    own, size = workspace.path / FILE, workspace.settings.detector.model.size
    name = None
    with suppress(DsmoeError):
        name = read_unchecked_card(own).made.get("start")
    if name == SCRATCH:
        return _Start(SCRATCH, None)
    if name == MOBILE_SAM:
        return _Start(MOBILE_SAM, initial_weights("mobile-sam", size, environment))
    for path in (workspace.path / INITIAL_FILE, shipped_path(size)):
        with suppress(DsmoeError):
            if (digest := read_card(path).sha256) == name:
                return _Start(digest, path)
    raise PrerequisiteError(
        f"{own} was trained from weights that its card does not name or that are missing",
        "Set detector.start and detector.warm_start in dsmoe.yaml to the weights to start from.",
    )


def _copied(source: Path, target: Path) -> Path:
    """The target, with the content of a warm start and its card."""
    from dsmoe_core.warm_start.checkpoint import card_path

    for file, copy in ((source, target), (card_path(source), card_path(target))):
        atomic_write(copy, file.read_bytes())
    return target


def _is_made(path: Path, plan: str) -> bool:
    """Whether this file is complete and of this plan."""
    from dsmoe_core.warm_start.checkpoint import read_card

    try:
        return bool(read_card(path).made.get("plan") == plan)
    except DsmoeError:
        return False


def _use(workspace: Workspace) -> None:
    """Set the warm start as the start of trainings, in the settings as they are now on disk."""
    with workspace.locked():
        file = workspace.path / "dsmoe.yaml"
        raw = WorkspaceSettings.read(file).model_dump()
        raw["detector"] |= {"start": "warm", "warm_start": FILE}
        validate_settings(WorkspaceSettings, raw, str(file)).write(file)
