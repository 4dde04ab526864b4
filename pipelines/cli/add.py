"""Command `dsmoe add`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.image_report import named, show_images
from pipelines.cli.labels import (
    LabelRequest,
    PredictionsOption,
    StrictOption,
    UnlabelledOption,
    read_labels,
    show_accounts,
)
from pipelines.cli.options import IntensityMaxOption, RequiredImagesOption
from pipelines.cli.terminal import TerminalReporter, line

if TYPE_CHECKING:
    from pipelines.workspace.additions import AdditionResult


def add(
    workspace: Annotated[Path, typer.Argument(metavar="WORKSPACE", help="Folder of the workspace.")],
    images: RequiredImagesOption,
    annotations: Annotated[
        Path | None,
        typer.Option("--annotations", metavar="FILE|DIR", help="Labels of these images: COCO, VOC or YOLO."),
    ] = None,
    intensity_max: IntensityMaxOption = None,
    strict: StrictOption = False,
    unlabelled: UnlabelledOption = None,
    predictions: PredictionsOption = False,
) -> None:
    """Add images, and labels of them, to the pool of a workspace; also while a round is open.

    Images that the workspace has already are passed over. An image never moves between the pool and the test
    set. Labels replace imported ones, but never what annotators drew in Label Studio.

    Example: `dsmoe add boards --images photos-may --annotations photos-may.json`
    """
    from dsmoe_core.data.label_source import SplitChoice
    from dsmoe_core.paths import check_output_folder
    from pipelines.workspace.additions import Addition, add_to_workspace
    from pipelines.workspace.workspace import Workspace

    request = LabelRequest(strict, unlabelled, predictions)
    with Workspace.open(workspace) as opened:
        check_output_folder(opened.path)
        labels = read_labels(annotations, images, request, split=SplitChoice.ALL) if annotations else None
        addition = Addition(images, labels, intensity_max, strict)
        with TerminalReporter() as progress:
            progress.status("importing images")
            added = add_to_workspace(opened, addition, progress=progress.advance)
        pool, test = len(opened.images("pool")), len(opened.images("test"))
    _report(added, opened.path)
    line(f"{opened.path}: {pool} images in the pool, {test} in the test set")


def _report(added: AdditionResult, workspace: Path) -> None:
    """Print what was added and what was there already."""
    from pipelines.workspace.import_log import read_imports

    found = len(added.ingest.images)
    line(f"{added.new_images} of {found} images are new and in the pool now")
    if known := found - added.new_images:
        line(f"{known} were in the workspace already, {added.test_images} of them in the test set")
    show_images(added.ingest)
    if added.account is not None:
        for record in read_imports(workspace)[:1]:
            show_accounts(record.accounts, record.file)
        line(f"{added.new_labels} images are labelled now that were not before")
    if added.replaced_labels:
        count = len(added.replaced_labels)
        line(f"labels of {count} images replace those imported before: {named(added.replaced_labels)}")
