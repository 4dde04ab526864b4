"""dsmoe train"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cli.options import BookOption, WorkspaceOption, open_workspace_or_none
from pipelines.cli.terminal import TerminalReporter, line


def train(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the model.")],
    annotations: Annotated[
        Path, typer.Option("--annotations", metavar="FILE|DIR", help="COCO file, VOC or YOLO folder.")
    ],
    images: Annotated[Path, typer.Option("--images", metavar="DIR", help="Folder of the images.")],
    workspace: WorkspaceOption = None,
    class_book: BookOption = None,
    start_from: Annotated[
        str | None, typer.Option("--from", metavar="MODEL", help="Folder or id of a model to go on from.")
    ] = None,
    images_seen: Annotated[
        int | None, typer.Option("--images-seen", min=1, help="Training length, in images shown.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", min=1, help="Images a step, over all processes.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of weights and batches.")] = None,
) -> None:
    """Train one model on labelled files, outside of any round, with a workspace's settings or the preset's.

    Started by torchrun in several processes, they share every batch. Interrupted, the same command goes on.

    Example: `dsmoe train model --annotations train.json --images photos --workspace boards`
    """
    from dsmoe_core.training.distributed import process_group
    from pipelines.progress import SilentProgress
    from pipelines.settings import Environment
    from pipelines.training.standalone_training import TrainingFiles, train_from_files

    changes = {"images_seen": images_seen, "batch": batch, "seed": seed}
    given = tuple((name, value) for name, value in changes.items() if value is not None)
    files = TrainingFiles(annotations, images, out, class_book, start_from, given)
    with (
        process_group() as processes,
        open_workspace_or_none(workspace) as opened,
        TerminalReporter() as terminal,
    ):
        progress = terminal if processes.is_main else SilentProgress()
        ended = train_from_files(files, opened, Environment.read(), progress)
    if processes.is_main:
        _show(ended, out)


def _show(ended: dict[str, Any], out: Path) -> None:
    for one in ended["left_out"]:
        line(f"left out: {one['name']}: {one['reason']}", "yellow")
    losses = ", ".join(f"{name} {value:.3f}" for name, value in ended["losses"].items())
    course = f"{ended['steps']} steps on {ended['images']} images in {ended['seconds']:.0f} s"
    line(f"{out}: {course}; {losses}")
