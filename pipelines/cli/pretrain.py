"""Command `dsmoe pretrain`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli.options import SeedOption, Size, finite, output_file, output_folder
from pipelines.cli.terminal import TerminalReporter, line

if TYPE_CHECKING:
    from pipelines.training.pretrain import WarmStartPlan


FILE_ONLY = ("size", "px", "synthetic", "images", "work")
"""Options that have no effect with --workspace."""


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
        help="Train on the images of this workspace's pool, and use the result in its next training; its "
        "encoder has to be TinyViT (dsmoe init --start warm, scratch or mobile-sam).",
    ),
]
MinutesOption = Annotated[
    float | None,
    typer.Option(
        "--minutes",
        min=0.01,
        callback=finite,
        help="Time for the training on unlabelled images, instead of --images-seen; with --images or "
        "--workspace.",
    ),
]
ObjectiveOption = Annotated[
    ObjectiveChoice,
    typer.Option(
        "--objective",
        help="What is learned from unlabelled images: masked pixels, or EfficientNet-Lite0's features; with "
        "--images or --workspace.",
    ),
]
SizeOption = Annotated[
    Size | None,
    typer.Option("--size", help="Size of the model; default: nano. Not with --workspace."),
]
SideOption = Annotated[
    int | None,
    typer.Option(
        "--px",
        min=64,
        help="Side of the images in pixels, a multiple of 32; default: 320. Not with --workspace.",
    ),
]
SyntheticOption = Annotated[
    int | None,
    typer.Option(
        "--synthetic",
        min=0,
        help="Number of synthetic images, a third of each kind; 0: none; default: 6000. Not with "
        "--workspace.",
    ),
]
ImagesSeenOption = Annotated[
    int | None,
    typer.Option(
        "--images-seen",
        min=1,
        help="Length of each part of the training, in images shown to the network; default: 48000.",
    ),
]
UnlabelledOption = Annotated[
    Path | None,
    typer.Option(
        "--images",
        metavar="DIR",
        help="Folder of unlabelled images to train on first. Not with --workspace.",
    ),
]
WorkOption = Annotated[
    Path | None,
    typer.Option(
        "--work",
        metavar="DIR",
        help="Folder of intermediate results; default: in the user's cache. Not with --workspace.",
        callback=output_folder,
    ),
]


def pretrain(
    out: FileArgument = None,
    workspace: PoolOption = None,
    minutes: MinutesOption = None,
    objective: ObjectiveOption = ObjectiveChoice.MASKED,
    size: SizeOption = None,
    px: SideOption = None,
    synthetic: SyntheticOption = None,
    images_seen: ImagesSeenOption = None,
    images: UnlabelledOption = None,
    seed: SeedOption = 42,
    work: WorkOption = None,
) -> None:
    """Make a warm start: initial weights of the image encoder TinyViT. An interrupted run is resumed.

    Trains a detector on synthetic boards, lids and bottles. With --images, first trains on your images
    without labels. With --workspace, trains on its images alone, for instance while people label its first
    round. Make the workspace with `dsmoe init --start warm`, or with scratch or mobile-sam.

    Example: `dsmoe pretrain --workspace boards --minutes 10`
    """
    from pipelines.settings.validation import validate_settings
    from pipelines.training.pretrain import WarmStartPlan

    given: dict[str, Any] = {
        "size": size.value if size else None,
        "px": px,
        "synthetic": synthetic,
        "images_seen": images_seen,
        "minutes": minutes,
    }
    given = {name: value for name, value in given.items() if value is not None}
    raw = {**given, "objective": objective.value, "seed": seed}
    plan = validate_settings(WarmStartPlan, raw, "the command line")
    if out is not None and workspace is None:
        _pretrain_file(out, plan, images, work)
    else:
        _pretrain_workspace(_workspace_of(workspace, out, {**given, "images": images, "work": work}), plan)


def _pretrain_file(out: Path, plan: WarmStartPlan, images: Path | None, work: Path | None) -> None:
    """Pretrain on synthetic images and on those of a folder.

    Raises:
        SettingsError: the name of the file does not end in .safetensors.
    """
    import platformdirs

    from dsmoe_core.atomic import disk_full_as_error
    from dsmoe_core.errors import SettingsError
    from pipelines.training.pretrain import pretrain as run_pretraining

    if out.suffix != ".safetensors":
        raise SettingsError(
            f"the file is {out}; expected a name that ends in .safetensors", "Change the name."
        )
    teacher = _teacher() if images is not None and plan.objective == "distill" else None
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


def _workspace_of(path: Path | None, out: Path | None, options: dict[str, Any]) -> Path:
    """The given workspace, if no option is given that has no effect on it.

    Args:
        options: values of options by the name of the option; None: not given.

    Raises:
        SettingsError: both or none of file and workspace are given, or an option is for a file only.
    """
    from dsmoe_core.errors import SettingsError

    if path is None or out is not None:
        given = "none" if path is None else "both"
        raise SettingsError(
            f"expected the file to write or --workspace; {given} given", "Give one of the two."
        )
    without_effect = [f"--{name}" for name in FILE_ONLY if options.get(name) is not None]
    if without_effect:
        raise SettingsError(
            f"{', '.join(without_effect)} given with --workspace, which has its own network and images",
            "Leave out what is for a file only.",
        )
    if {"minutes", "images_seen"} <= options.keys():
        raise SettingsError(
            f"--minutes is {options['minutes']} and --images-seen is {options['images_seen']}; expected one "
            "length of the training",
            "Give one of the two.",
        )
    return path


def _pretrain_workspace(path: Path, plan: WarmStartPlan) -> None:
    """Pretrain on the images of a workspace, with the objective and the length of the plan."""
    from dsmoe_core.atomic import disk_full_as_error
    from pipelines.settings.environment import Environment
    from pipelines.training.workspace_pretraining import pretrain_workspace
    from pipelines.workspace.workspace import Workspace

    training, objective = plan.unlabelled_training, plan.objective
    with (
        Workspace.open(path) as workspace,
        TerminalReporter() as progress,
        disk_full_as_error(workspace.path),
    ):
        made = pretrain_workspace(workspace, training, objective, Environment.read(), progress)
    line(
        f"{made.path} {'is written' if made.written else 'exists already'}, from {made.images} images, "
        f"started from {made.start or 'random weights'}"
    )
    if made.champion is None:
        line("detector.start and warm_start are set: the next training of the workspace starts from it")
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
