"""Command `dsmoe pretrain`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cli.options import SeedOption, Size, SizeOption, finite, output_file, output_folder
from pipelines.cli.terminal import TerminalReporter, line


class ObjectiveChoice(StrEnum):
    """What is learned from unlabelled images."""

    MASKED = "masked"
    DISTILL = "distill"


FileArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="FILE.safetensors", help="File to write; not with --workspace.", callback=output_file
    ),
]
PoolOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        metavar="DIR",
        help="Train on the images of this workspace's pool, and use the result in its next training.",
    ),
]
MinutesOption = Annotated[
    float | None,
    typer.Option(
        "--minutes",
        min=0.01,
        callback=finite,
        help="Time for the training on unlabelled images, instead of --images-seen.",
    ),
]
ObjectiveOption = Annotated[
    ObjectiveChoice,
    typer.Option(
        "--objective",
        help="What is learned from unlabelled images: masked pixels, or EfficientNet-Lite0's features.",
    ),
]
SideOption = Annotated[
    int, typer.Option("--px", min=64, help="Side of the images in pixels, a multiple of 32.")
]
SyntheticOption = Annotated[
    int,
    typer.Option("--synthetic", min=0, help="Number of synthetic images, a third of each kind; 0: none."),
]
ImagesSeenOption = Annotated[
    int,
    typer.Option(
        "--images-seen",
        min=1,
        help="Length of each part of the training, in images shown to the network.",
    ),
]
UnlabelledOption = Annotated[
    Path | None,
    typer.Option("--images", metavar="DIR", help="Folder of unlabelled images to train on first."),
]
WorkOption = Annotated[
    Path | None,
    typer.Option(
        "--work",
        metavar="DIR",
        help="Folder of intermediate results; default: in the user's cache.",
        callback=output_folder,
    ),
]


def pretrain(
    out: FileArgument = None,
    workspace: PoolOption = None,
    minutes: MinutesOption = None,
    objective: ObjectiveOption = ObjectiveChoice.MASKED,
    size: SizeOption = Size.NANO,
    px: SideOption = 320,
    synthetic: SyntheticOption = 6000,
    images_seen: ImagesSeenOption = 48_000,
    images: UnlabelledOption = None,
    seed: SeedOption = 42,
    work: WorkOption = None,
) -> None:
    """Make a warm start: initial weights of the image encoder. An interrupted run is resumed.

    Trains a detector on synthetic boards, lids and bottles. With --images, first trains on your images
    without labels. With --workspace, trains on its images alone, for instance while people label its first
    round.

    Example: `dsmoe pretrain --workspace boards --minutes 10`
    """
    if workspace is not None or out is None:
        _pretrain_workspace(workspace, out, minutes, objective, images_seen, seed)
        return
    import platformdirs

    from dsmoe_core.atomic import disk_full_as_error
    from dsmoe_core.errors import SettingsError
    from pipelines.settings.validation import validate_settings
    from pipelines.training.pretrain import WarmStartPlan
    from pipelines.training.pretrain import pretrain as run_pretraining

    if out.suffix != ".safetensors":
        raise SettingsError(
            f"the file is {out}; expected a name that ends in .safetensors", "Change the name."
        )
    raw: dict[str, Any] = {
        "size": size.value,
        "px": px,
        "synthetic": synthetic,
        "images_seen": images_seen,
        "seed": seed,
    }
    raw |= {"minutes": minutes, "objective": objective.value}
    plan = validate_settings(WarmStartPlan, raw, "the command line")
    teacher = _teacher() if images is not None and objective is ObjectiveChoice.DISTILL else None
    work = work or platformdirs.user_cache_path("dsmoe") / "pretrain"
    with TerminalReporter() as progress, disk_full_as_error(work):
        card, written = run_pretraining(plan, images, out, work, progress, teacher)
    _print_metrics(card)
    line(f"{out} and its card {'are written' if written else 'exist already'}")


def _teacher() -> Path:
    """The weights that the objective ``distill`` learns from.

    Raises:
        PrerequisiteError: their package is not installed.
    """
    from pipelines.settings.environment import Environment
    from pipelines.training.weights import install_imagenet_lite

    return install_imagenet_lite(Environment.read().weights, None).path


def _pretrain_workspace(
    path: Path | None,
    out: Path | None,
    minutes: float | None,
    objective: ObjectiveChoice,
    images_seen: int,
    seed: int,
) -> None:
    """Pretrain on the images of a workspace.

    Raises:
        SettingsError: both or none of file and workspace are given.
    """
    from dsmoe_core.atomic import disk_full_as_error
    from dsmoe_core.config import TrainingConfig
    from dsmoe_core.errors import SettingsError
    from pipelines.settings.environment import Environment
    from pipelines.training.workspace_pretraining import pretrain_workspace
    from pipelines.workspace.workspace import Workspace

    if path is None or out is not None:
        given = "none" if path is None else "both"
        raise SettingsError(
            f"expected the file to write or --workspace; {given} given", "Give one of the two."
        )
    training = TrainingConfig(images_seen=images_seen, minutes=minutes, seed=seed)
    with (
        Workspace.open(path) as workspace,
        TerminalReporter() as progress,
        disk_full_as_error(workspace.path),
    ):
        made = pretrain_workspace(workspace, training, objective.value, Environment.read(), progress)
    line(f"{made.path} {'is written' if made.written else 'exists already'}, from {made.images} images")
    if made.champion is None:
        line("detector.warm_start is set: the next training of the workspace starts from it")
    else:
        line(
            f"the next round starts from the champion {made.champion}, and trainings without a model from it"
        )


def _print_metrics(card: dict[str, Any]) -> None:
    for kind, metrics in card["made"].get("held_out", {}).items():
        line(
            f"{kind}: mAP@.5 {metrics['map50']:.3f}, mAP@.5:.95 {metrics['map']:.3f} "
            f"on {metrics['images']} held-out synthetic images"
        )
