"""Command `dsmoe data export`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.options import CURRENT_FOLDER, WorkspaceArgument, replaced_folder
from pipelines.cli.terminal import TerminalReporter, line


class LabelFormatName(StrEnum):
    """Label formats that can be written."""

    COCO = "coco"
    VOC = "voc"
    YOLO = "yolo"


def export(
    label_format: Annotated[LabelFormatName, typer.Option("--format", help="Format of the labels.")],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder to create; replaces an earlier export.",
            callback=replaced_folder,
        ),
    ],
    workspace: WorkspaceArgument = CURRENT_FOLDER,
    version: Annotated[
        str | None,
        typer.Option("--version", metavar="ID", help="Dataset version; default: the latest labels."),
    ] = None,
    first_id: Annotated[
        int | None,
        typer.Option(
            "--first-id", min=0, max=1, help="Id of the first class of COCO; default: 1. D-FINE needs 0."
        ),
    ] = None,
    link: Annotated[
        bool,
        typer.Option("--link", help="Hard links instead of copies: saves space, but never edit the images."),
    ] = False,
) -> None:
    """Export the labelled images as `train` and the test set as `val`, with the images.

    The class order is that of the class book. Images without a label are not exported.

    Example: `dsmoe data export boards --format yolo --out boards-yolo`
    """
    from functools import partial

    from dsmoe_core.data import coco
    from dsmoe_core.data.formats import LABEL_FORMATS
    from dsmoe_core.errors import SettingsError
    from pipelines.datasets.label_export import export_labels
    from pipelines.workspace.workspace import Workspace

    chosen = next(f for f in LABEL_FORMATS if f.name == label_format.value)
    if first_id is not None:
        if label_format is not LabelFormatName.COCO:
            raise SettingsError(f"--first-id is given with --format {label_format}", "Use it with coco only.")
        chosen = chosen._replace(write=partial(coco.write, first_category=first_id))
    with Workspace.open(workspace) as opened, TerminalReporter() as progress:
        progress.status("copying images")
        made = export_labels(opened, chosen, out, version=version, link=link, progress=progress.advance)
    for split, images in made.images.items():
        line(f"{split}: {images} images with {made.boxes[split]} boxes")
    if made.renamed:
        old, new = next(iter(made.renamed.items()))
        line(f"{len(made.renamed)} images have another name, such as {new} for {old}; {out} lists them")
    line(f"{out} is written, with {len(made.classes)} classes")
