"""dsmoe weights mobile-sam"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.terminal import line

if TYPE_CHECKING:
    from dsmoe_core.mobile_sam.weights import ConversionReport

app = typer.Typer(help="Pretrained weights from elsewhere.", no_args_is_help=True)


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
            help="mobile_sam.pt, or its tensors as safetensors; default: from the Hugging Face hub.",
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--to",
            metavar="FOLDER",
            file_okay=False,
            help="Where to keep them; default: DSMOE_WEIGHTS, or the user's cache.",
        ),
    ] = None,
) -> None:
    """Fetch MobileSAM's weights, check every tensor, and keep them for the encoder and for masks from clicks.

    Example: `dsmoe weights mobile-sam --from mobile_sam.pt`
    """
    from pipelines.settings import Environment
    from pipelines.training.weights import install_mobile_sam

    kept = install_mobile_sam(folder or Environment.read().weights, source, _tell)
    words = "kept at" if kept.new else "already at"
    line(f"MobileSAM from {kept.source}: {words} {kept.path}")


def _tell(report: ConversionReport) -> None:
    for found in report.lines:
        line(found)
