"""Command `dsmoe train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dsmoe_core.data.import_account import Unlabelled
from pipelines.cli.image_report import show_intensity_scale
from pipelines.cli.labels import (
    LabelRequest,
    PredictionsOption,
    StrictOption,
    UnlabelledOption,
    read_labels,
    show_accounts,
)
from pipelines.cli.options import (
    MAX_SEED,
    BookOption,
    IntensityMaxOption,
    RequiredImagesOption,
    WorkspaceOption,
    open_workspace_or_none,
    output_folder,
)
from pipelines.cli.terminal import TerminalReporter, line


def train(
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder to write the model to.", callback=output_folder)
    ],
    annotations: Annotated[
        Path, typer.Option("--annotations", metavar="FILE|DIR", help="COCO file, VOC or YOLO folder.")
    ],
    images: RequiredImagesOption,
    workspace: WorkspaceOption = None,
    class_book: BookOption = None,
    start_from: Annotated[
        str | None, typer.Option("--from", metavar="MODEL", help="Folder or id of a model to start from.")
    ] = None,
    images_seen: Annotated[
        int | None,
        typer.Option("--images-seen", min=1, help="Training length, in images shown to the network."),
    ] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", min=1, help="Images per step, over all processes.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, max=MAX_SEED, help="Seed of initial weights and batches.")
    ] = None,
    intensity_max: IntensityMaxOption = None,
    strict: StrictOption = False,
    unlabelled: UnlabelledOption = None,
    predictions_as_labels: PredictionsOption = False,
) -> None:
    """Train one model on labelled files, without a round, with a workspace's settings or the defaults.

    Under torchrun, the processes share every batch. An interrupted training is resumed.

    Example: `dsmoe train model --annotations train.json --images photos --workspace boards`
    """
    from dsmoe_core.data.label_source import SplitChoice
    from dsmoe_core.training.distributed import process_group
    from pipelines.progress import SilentProgress
    from pipelines.settings import Environment
    from pipelines.training.standalone_training import TrainingFiles, train_from_files
    from pipelines.workspace.import_log import IMPORT_FILE, write_record

    changes = {"images_seen": images_seen, "batch": batch, "seed": seed}
    overrides = tuple((name, value) for name, value in changes.items() if value is not None)
    request = LabelRequest(strict, unlabelled, predictions_as_labels)
    with process_group() as processes, open_workspace_or_none(workspace) as opened:
        default = None if processes.count == 1 else Unlabelled.IGNORE  # several processes cannot ask
        labels = read_labels(annotations, images, request, split=SplitChoice.TRAIN, default=default)
        files = TrainingFiles(labels, images, out, class_book, start_from, overrides, intensity_max, strict)
        with TerminalReporter() as terminal:
            progress = terminal if processes.is_main else SilentProgress()
            summary = train_from_files(files, opened, Environment.read(), progress)
    if processes.is_main:
        write_record(out / IMPORT_FILE, "train", {"annotations": summary["account"]})
        _print_summary(summary, out)


def _print_summary(summary: dict[str, Any], out: Path) -> None:
    from pipelines.workspace.import_log import IMPORT_FILE

    show_accounts({"annotations": summary["account"]}, out / IMPORT_FILE)
    show_intensity_scale(summary["scale"], summary["clipped"])
    losses = ", ".join(f"{name} {value:.3f}" for name, value in summary["losses"].items())
    course = f"{summary['steps']} steps on {summary['images']} images in {summary['seconds']:.0f} s"
    line(f"{out}: {course}; {losses}")
