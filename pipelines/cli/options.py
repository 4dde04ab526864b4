"""Arguments and options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

WorkspaceArgument = Annotated[Path, typer.Argument(metavar="WORKSPACE", help="Folder of the workspace.")]
PortOption = Annotated[
    int | None,
    typer.Option("--port", min=1, max=65535, help="Port of Label Studio; default: the workspace's."),
]
HERE = Path()


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


def shaped(model: dict[str, Any], ablation: AblationRow | None, tiny_head: bool | None) -> dict[str, Any]:
    """The settings of a network, with a row of the ablation and the tiny-object head chosen."""
    from dsmoe_core.config import ModelConfig

    if ablation is not None:
        model = {**model, "ablation": ablation.value}
    if tiny_head is not None:
        preset = ModelConfig.of_size(model.get("size", "nano"))
        model = {**model, "head_strides": preset.with_tiny_head(tiny_head).head_strides}
    return model
