"""Command `dsmoe weights mobile-sam`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.options import output_folder
from pipelines.cli.terminal import line

if TYPE_CHECKING:
    from dsmoe_core.mobile_sam.weights import ConversionReport

app = typer.Typer(help="Pretrained weights of other projects.", no_args_is_help=True)


@app.command("mobile-sam")
def mobile_sam(
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            readable=True,
            help="mobile_sam.pt, or its tensors as safetensors; default: download from the Hugging Face hub.",
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--to",
            metavar="DIR",
            callback=output_folder,
            help="Folder to install to; default: DSMOE_WEIGHTS, or the user's cache.",
        ),
    ] = None,
) -> None:
    """Install MobileSAM's weights, for the image encoder and for masks at clicks; every tensor is checked.

    Example: `dsmoe weights mobile-sam --from mobile_sam.pt`
    """
    from pipelines.settings import Environment
    from pipelines.training.weights import install_mobile_sam

    installed = install_mobile_sam(folder or Environment.read().weights, source, _print_report)
    state = "installed at" if installed.new else "is already at"
    line(f"MobileSAM from {installed.source} {state} {installed.path}")


def _print_report(report: ConversionReport) -> None:
    for text in report.lines:
        line(text)
