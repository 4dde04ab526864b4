"""Training of a student network from a teacher and labelled files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from dsmoe_core.checkpoint import read_card
from dsmoe_core.config import ModelConfig
from pipelines.detectors.ds_moe import packaged_start
from pipelines.progress import ProgressReporter
from pipelines.settings.environment import Environment
from pipelines.settings.validation import validate_settings
from pipelines.training.standalone_training import TrainingFiles, train_from_files
from pipelines.workspace.model_ref import resolve_model
from pipelines.workspace.workspace import Workspace


@dataclass(frozen=True, slots=True)
class StudentOptions:
    """The network of a student. Its input and its head strides are the teacher's.

    Without options it is the network of the workspace, else that of the model to start from, else that of the
    teacher.

    Attributes:
        size: preset, with the backbone of the network without options; None: that network.
        experts: number of experts; None: that of the network or the preset.
        top_k: experts selected per image; None: likewise, but at most ``experts``.
    """

    size: Literal["nano", "base"] | None = None
    experts: int | None = None
    top_k: int | None = None


def train_student(
    files: TrainingFiles,
    workspace: Workspace | None,
    environment: Environment,
    progress: ProgressReporter,
    *,
    teacher: str,
    options: StudentOptions,
) -> dict[str, Any]:
    """Train a student from a teacher and from labels.

    Without a workspace and a model to start from, its image encoder has the packaged weights of its backbone,
    and is trained or frozen as ``dsmoe train`` does.

    Args:
        files, workspace, environment, progress: see :func:`train_from_files`.
        teacher: folder or id of the model to learn from.
        options: the network of the student.

    Returns:
        As :func:`train_from_files`, with the number of ``parameters`` and of ``teacher_parameters``.

    Raises:
        DataError: see :func:`train_from_files`.
        ModelError: a model does not exist or does not fit.
        PrerequisiteError: the initial weights need a package that is not installed.
        SettingsError: the network of the student is impossible.
    """
    folder = resolve_model(teacher, workspace).folder
    student = student_network(_base_network(files, workspace, folder), folder, options)
    has_weights = workspace is not None or files.start_from is not None
    start = None if has_weights else packaged_start(student)
    summary = train_from_files(
        replace(files, teacher=folder, model=student, start=start), workspace, environment, progress
    )
    counts = {"parameters": parameter_count(files.out), "teacher_parameters": parameter_count(folder)}
    return {**summary, **counts}


def _base_network(files: TrainingFiles, workspace: Workspace | None, teacher: Path) -> ModelConfig:
    """The network of a student without options; see :class:`StudentOptions`."""
    if workspace is not None:
        return workspace.settings.detector.model
    start = resolve_model(files.start_from, None).folder if files.start_from else teacher
    return read_card(start).config


def student_network(base: ModelConfig, teacher: Path, options: StudentOptions) -> ModelConfig:
    """The network of a student, with the input, the tiles and the head strides of its teacher.

    Args:
        base: the network without options.
        teacher: folder of the teacher's model.

    Raises:
        ModelError: the teacher's folder has no complete model.
        SettingsError: the network is impossible.
    """
    from dsmoe_core.training.teacher import SHARED_FIELDS

    card = read_card(teacher)
    network = base
    if options.size is not None:
        network = ModelConfig.of_size(options.size).model_copy(update={"backbone": base.backbone})
    experts = options.experts or network.experts
    values = {
        **network.model_dump(),
        **{name: getattr(card.config, name) for name in (*SHARED_FIELDS, "tiles")},
        "experts": experts,
        "top_k": options.top_k or min(network.top_k, experts),
    }
    return validate_settings(ModelConfig, values, "the network of the student")


def parameter_count(model: Path) -> int:
    """Number of weights of a model, without running statistics.

    Raises:
        ModelError: the folder has no complete model.
    """
    from dsmoe_core.build import build

    return sum(weights.numel() for weights in build(read_card(model).config).parameters())
