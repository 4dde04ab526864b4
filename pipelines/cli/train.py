"""Commands `dsmoe train` and `dsmoe distill`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
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
    Size,
    Start,
    WorkspaceOption,
    finite,
    open_workspace_or_none,
    output_folder,
)
from pipelines.cli.terminal import TerminalReporter, line

OutArgument = Annotated[
    Path, typer.Argument(metavar="OUT", help="Folder to write the model to.", callback=output_folder)
]
AnnotationsOption = Annotated[
    Path, typer.Option("--annotations", metavar="FILE|DIR", help="COCO file, VOC or YOLO folder.")
]
StartOption = Annotated[
    str | None, typer.Option("--from", metavar="MODEL", help="Folder or id of a model to start from.")
]
InitialWeightsOption = Annotated[
    Start | None,
    typer.Option(
        "--start",
        help="Initial weights of the image encoder without --workspace and --from; default: as dsmoe init. "
        "The encoder is trained only if they are random.",
    ),
]
ImagesSeenOption = Annotated[
    int | None,
    typer.Option("--images-seen", min=1, help="Training length, in images shown to the network."),
]
MinutesOption = Annotated[
    float | None,
    typer.Option(
        "--minutes", min=0.01, callback=finite, help="Time for the training, instead of a number of images."
    ),
]
PatienceOption = Annotated[
    int | None,
    typer.Option(
        "--patience",
        metavar="N",
        min=1,
        help="Early stopping: end after N evaluations without improvement, on images held out for it.",
    ),
]
BatchOption = Annotated[
    int | None, typer.Option("--batch", min=1, help="Images per step, over all processes.")
]
TrainingSeedOption = Annotated[
    int | None, typer.Option("--seed", min=0, max=MAX_SEED, help="Seed of initial weights and batches.")
]


def train(
    out: OutArgument,
    annotations: AnnotationsOption,
    images: RequiredImagesOption,
    workspace: WorkspaceOption = None,
    class_book: BookOption = None,
    start_from: StartOption = None,
    start: InitialWeightsOption = None,
    images_seen: ImagesSeenOption = None,
    minutes: MinutesOption = None,
    patience: PatienceOption = None,
    batch: BatchOption = None,
    seed: TrainingSeedOption = None,
    choose_augmentation: Annotated[
        bool,
        typer.Option(
            "--choose-augmentation",
            help="Copy-paste for rare classes, unless the image encoder is frozen; quarter turns only if a "
            "short trial with and without them allows it. Takes half as long again, in one process.",
        ),
    ] = False,
    intensity_max: IntensityMaxOption = None,
    strict: StrictOption = False,
    unlabelled: UnlabelledOption = None,
    predictions_as_labels: PredictionsOption = False,
) -> None:
    """Train one model on labelled files, without a round, with a workspace's settings or the defaults.

    Under torchrun, the processes share every batch. An interrupted training is resumed.

    Example: `dsmoe train model --annotations train.json --images photos --minutes 10`
    """
    from pipelines.training.standalone_training import train_from_files

    _run(
        train_from_files,
        annotations,
        images,
        LabelRequest(strict, unlabelled, predictions_as_labels),
        workspace,
        out=out,
        class_book=class_book,
        start_from=start_from,
        start=start.value if start else None,
        choose_augmentation=choose_augmentation,
        changes=_given(images_seen=images_seen, minutes=minutes, patience=patience, batch=batch, seed=seed),
        intensity_max=intensity_max,
        strict=strict,
    )


def distill(
    out: OutArgument,
    teacher: Annotated[
        str, typer.Option("--teacher", metavar="MODEL", help="Folder or id of the model to learn from.")
    ],
    annotations: AnnotationsOption,
    images: RequiredImagesOption,
    workspace: WorkspaceOption = None,
    class_book: BookOption = None,
    size: Annotated[
        Size | None,
        typer.Option(
            "--size",
            help="Size of the student, with the same backbone; default: the network of the workspace, "
            "of --from or of the teacher.",
        ),
    ] = None,
    experts: Annotated[
        int | None, typer.Option("--experts", min=1, help="Number of the student's experts.")
    ] = None,
    top_k: Annotated[
        int | None, typer.Option("--top-k", min=1, help="Experts that the student selects for an image.")
    ] = None,
    start_from: StartOption = None,
    images_seen: ImagesSeenOption = None,
    batch: BatchOption = None,
    seed: TrainingSeedOption = None,
    intensity_max: IntensityMaxOption = None,
    strict: StrictOption = False,
    unlabelled: UnlabelledOption = None,
    predictions_as_labels: PredictionsOption = False,
) -> None:
    """Train a small model, the student, from a trained one, the teacher, and from labels.

    Image side, head strides, tiles and preprocessing are the teacher's. The student learns the teacher's
    probabilities and boxes for the classes that both have. An interrupted training is resumed.

    Example: `dsmoe distill student --teacher model --annotations train.json --images photos --experts 4`
    """
    from pipelines.training.student import StudentOptions, train_student

    options = StudentOptions(size.value if size else None, experts, top_k)
    _run(
        partial(train_student, teacher=teacher, options=options),
        annotations,
        images,
        LabelRequest(strict, unlabelled, predictions_as_labels),
        workspace,
        out=out,
        class_book=class_book,
        start_from=start_from,
        changes=_given(images_seen=images_seen, batch=batch, seed=seed),
        intensity_max=intensity_max,
        strict=strict,
    )


def _given(**options: float | None) -> tuple[tuple[str, float], ...]:
    """The options that are given, as (name, value)."""
    return tuple((name, value) for name, value in options.items() if value is not None)


def _run(
    work: Callable[..., dict[str, Any]],
    annotations: Path,
    images: Path,
    request: LabelRequest,
    workspace: Path | None,
    **files: Any,
) -> None:
    """Read the labels, train, and print the summary.

    Args:
        work: the training; called like ``train_from_files``.
        files: further fields of ``TrainingFiles``.
    """
    from dsmoe_core.data.label_source import SplitChoice
    from dsmoe_core.training.distributed import process_group
    from pipelines.progress import SilentProgress
    from pipelines.settings.environment import Environment
    from pipelines.training.standalone_training import TrainingFiles
    from pipelines.workspace.import_log import IMPORT_FILE, write_record

    with process_group() as processes, open_workspace_or_none(workspace) as opened:
        default = None if processes.count == 1 else Unlabelled.IGNORE  # several processes cannot ask
        labels = read_labels(annotations, images, request, split=SplitChoice.TRAIN, default=default)
        training = TrainingFiles(labels, images, **files)
        with TerminalReporter() as terminal:
            progress = terminal if processes.is_main else SilentProgress()
            summary = work(training, opened, Environment.read(), progress)
    if processes.is_main:
        write_record(training.out / IMPORT_FILE, "train", {"annotations": summary["account"]})
        _print_summary(summary, training.out)


def _print_summary(summary: dict[str, Any], out: Path) -> None:
    from pipelines.workspace.import_log import IMPORT_FILE

    show_accounts({"annotations": summary["account"]}, out / IMPORT_FILE)
    show_intensity_scale(summary["scale"], summary["clipped"])
    for choice in summary["choices"]:
        line(choice)
    losses = ", ".join(f"{name} {value:.3f}" for name, value in summary["losses"].items())
    course = f"{summary['steps']} steps on {summary['images']} images in {summary['seconds']:.0f} s"
    course += f", precision {summary['precision']}, {summary['threads']} threads"
    line(f"{out}: {course}; {losses}")
    if summary["held_out"]:
        line(_early_stopping(summary["length"], len(summary["held_out"])))
    if "parameters" in summary:
        line(f"student: {summary['parameters']:,} parameters; teacher: {summary['teacher_parameters']:,}")


def _early_stopping(length: dict[str, Any], held_out: int) -> str:
    """What the evaluations on the images held out decided; those images were not trained on."""
    best = max((value for _, value in length["evaluations"]), default=0.0)
    count = len(length["evaluations"])
    return (
        f"{held_out} images were held out and not trained on; {count} evaluations on them, "
        f"best mAP@.5:.95 {best:.3f}; ended by: {length['stopped']}"
    )
