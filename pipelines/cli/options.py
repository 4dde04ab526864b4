"""Arguments and options that several commands share."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dsmoe_core.paths import check_output_file, check_output_folder

if TYPE_CHECKING:
    from pipelines.workspace.workspace import Workspace

CURRENT_FOLDER = Path()
RESULTS = Path("benchmarks/results")
"""Default folder of the benchmarks' result files."""

MAX_SEED = 2**32 - 1


def output_file(path: Path | None) -> Path | None:
    """Callback of an option: check before the work that the file can be written.

    Raises:
        PrerequisiteError: see dsmoe_core.paths.
    """
    if path is not None:
        check_output_file(path)
    return path


def output_folder(path: Path | None) -> Path | None:
    """Callback of an option: check before the work that files can be written to the folder.

    Raises:
        PrerequisiteError: see dsmoe_core.paths.
    """
    if path is not None:
        check_output_folder(path)
    return path


def replaced_folder(path: Path | None) -> Path | None:
    """Callback of an option: check before the work that the folder can be replaced as a whole.

    Raises:
        PrerequisiteError: see dsmoe_core.paths.
    """
    if path is not None:
        check_output_folder(path, replaced=True)
    return path


def finite(number: float | None) -> float | None:
    """Callback of an option: the limits of a range do not exclude "nan", nor do open ones exclude "inf".

    Raises:
        BadParameter: the number is not finite.
    """
    if number is not None and not math.isfinite(number):
        raise typer.BadParameter(f"{number} is not a finite number.")
    return number


WorkspaceArgument = Annotated[
    Path, typer.Argument(metavar="WORKSPACE", help="Folder of the workspace; default: the current folder.")
]
WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        metavar="DIR",
        help="Workspace in which model ids are looked up; default: the current folder, if it is one.",
    ),
]
PortOption = Annotated[
    int | None,
    typer.Option(
        "--port",
        min=1,
        max=65535,
        help="Port of Label Studio; default: the workspace's, or the next free one if it is taken.",
    ),
]
BudgetOption = Annotated[
    int, typer.Option("--budget", min=1, help="Images sent to annotators in each round.")
]
DryRunOption = Annotated[
    bool,
    typer.Option("--dry-run", help="Use stubs for Label Studio and the detector; the metrics mean nothing."),
]
ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="Folder of a model, or the id of one in a workspace.")
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Reason, kept in the history.")]
BookOption = Annotated[
    Path | None,
    typer.Option(
        "--class-book",
        metavar="FILE",
        help="Class book with the descriptions to use; default: the workspace's, or the model's own.",
    ),
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, max=MAX_SEED, help="Seed of the random numbers.")]
ResamplesOption = Annotated[
    int, typer.Option("--resamples", min=100, max=1_000_000, help="Bootstrap resamples of the images.")
]
ResultsOption = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Folder of result files.", callback=output_folder)
]
RequiredImagesOption = Annotated[Path, typer.Option("--images", metavar="DIR", help="Folder of images.")]
ImagesOption = Annotated[Path | None, typer.Option("--images", metavar="DIR", help="Folder of images.")]
IntensityMaxOption = Annotated[
    int | None,
    typer.Option(
        "--intensity-max",
        metavar="N",
        min=1,
        max=65535,
        help="Value that is white in images of more than 8 bits per channel; default: that of the workspace "
        "or the model, else the largest value of the bit depth that covers all images.",
    ),
]
DemoDataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="Folder with images/, train.json (pool) and val.json (test set); default: synthetic images.",
    ),
]
DemoImagesSeenOption = Annotated[
    str | None,
    typer.Option(
        "--images-seen",
        metavar="N,N,...",
        help="Training length of rounds 0, 1, ... in images shown to the network.",
    ),
]


class Size(StrEnum):
    """Model sizes."""

    NANO = "nano"
    BASE = "base"


SizeOption = Annotated[Size, typer.Option("--size", help="Size of the model.")]
PxOption = Annotated[
    int | None,
    typer.Option(
        "--px", min=64, help="Side of the network's input in pixels; default: the settings' or the size's."
    ),
]


class SyntheticKindChoice(StrEnum):
    """Kinds of synthetic images."""

    PCB = "pcb"
    ALUMINIUM = "aluminium"
    GLASS = "glass"


class AblationRow(StrEnum):
    """Rows of the paper's ablation table."""

    A = "A"
    B = "B"
    C = "C"
    D = "D"
    E = "E"
    F = "F"


AblationOption = Annotated[
    AblationRow | None,
    typer.Option(
        "--ablation",
        case_sensitive=False,
        help="Row of the paper's ablation: A ResNet-50, B + text, C + MobileSAM's encoder, "
        "D + hyperbolic alignment, E + dynamic experts (default), F + the paper's losses, QFL and CIoU.",
    ),
]
TinyHeadOption = Annotated[
    bool | None,
    typer.Option(
        "--tiny-head/--no-tiny-head",
        help="Detect at stride 4 too, for tiny defects; default: unless labels show none.",
    ),
]


@contextmanager
def open_workspace_or_none(path: Path | None) -> Iterator[Workspace | None]:
    """Open the given workspace, or the current folder if it is one.

    Args:
        path: folder of the workspace; None for the current folder.

    Yields:
        None where no path is given and the current folder is not a workspace.
    """
    from pipelines.workspace.workspace import Workspace

    if path is None and not Path("dsmoe.yaml").is_file():
        yield None
        return
    with Workspace.open(path or Path()) as opened:
        yield opened


def with_model_options(
    model: dict[str, Any], ablation: AblationRow | None, tiny_head: bool | None
) -> dict[str, Any]:
    """The model settings with the options --ablation and --tiny-head applied."""
    from dsmoe_core.config import ModelConfig

    if ablation is not None:
        model = {**model, "ablation": ablation.value}
    if tiny_head is not None:
        preset = ModelConfig.of_size(model.get("size", "nano"))
        model = {**model, "head_strides": preset.with_tiny_head(tiny_head).head_strides}
    return model


class Start(StrEnum):
    """Initial weights of the image encoder."""

    WARM = "warm"
    SCRATCH = "scratch"
    IMAGENET_LITE = "imagenet-lite"


class EncoderTraining(StrEnum):
    """Whether the image encoder is trained."""

    FROZEN = "frozen"
    TRAIN = "train"


EncoderOption = Annotated[
    EncoderTraining | None,
    typer.Option(
        "--encoder",
        help="Whether trainings change the image encoder; frozen is faster. Default: frozen with the "
        "weights imagenet-lite and warm, else train.",
    ),
]
