"""Arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pipelines.workspace.workspace import Workspace

WorkspaceArgument = Annotated[Path, typer.Argument(metavar="WORKSPACE", help="Folder of the workspace.")]
PortOption = Annotated[
    int | None,
    typer.Option("--port", min=1, max=65535, help="Port of Label Studio; default: the workspace's."),
]
StudioPortOption = Annotated[int, typer.Option("--port", min=1, max=65535, help="Port of Label Studio.")]
CURRENT_FOLDER = Path()
ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="Folder of a model, or the id of one in a workspace.")
]
WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        metavar="DIR",
        help="Where ids are looked up; default: the present folder, if it is one.",
    ),
]
BookOption = Annotated[
    Path | None,
    typer.Option(
        "--class-book",
        metavar="FILE",
        help="The words to read; default: the workspace's, or those that the model was trained on.",
    ),
]


class Size(StrEnum):
    """Presets of the detector."""

    NANO = "nano"
    BASE = "base"


RESULTS = Path("benchmarks/results")
"""Where the benchmarks leave their result files."""
SizeOption = Annotated[Size, typer.Option("--size", help="Preset of the detector.")]
PxOption = Annotated[
    int | None,
    typer.Option("--px", min=64, help="Side of the network's input; default: the settings' or the preset's."),
]


class SyntheticKindChoice(StrEnum):
    """Kinds of images that we can draw."""

    PCB = "pcb"
    ALUMINIUM = "aluminium"
    GLASS = "glass"


class AblationRow(StrEnum):
    """Rows of the paper's ablation."""

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
        "D + hyperbolic alignment, E + dynamic experts, F + QFL and CIoU (the whole, the default).",
    ),
]
TinyHeadOption = Annotated[
    bool | None,
    typer.Option("--tiny-head/--no-tiny-head", help="Detect at stride 4 too; default: the preset's."),
]


@contextmanager
def open_workspace_or_none(path: Path | None) -> Iterator[Workspace | None]:
    """The workspace that is named; the present folder where that is one; else none."""
    from pipelines.workspace.workspace import Workspace

    if path is None and not Path("dsmoe.yaml").is_file():
        yield None
        return
    with Workspace.open(path or Path()) as opened:
        yield opened


def with_model_options(
    model: dict[str, Any], ablation: AblationRow | None, tiny_head: bool | None
) -> dict[str, Any]:
    """The settings of a network, with a row of the ablation and the tiny-object head chosen."""
    from dsmoe_core.config import ModelConfig

    if ablation is not None:
        model = {**model, "ablation": ablation.value}
    if tiny_head is not None:
        preset = ModelConfig.of_size(model.get("size", "nano"))
        model = {**model, "head_strides": preset.with_tiny_head(tiny_head).head_strides}
    return model
