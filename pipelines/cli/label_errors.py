"""dsmoe label-errors, dsmoe benchmark label-errors"""

from __future__ import annotations

import json
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from dsmoe_core.data.import_account import Unlabelled
from pipelines.cli.labels import LabelRequest, read_labels
from pipelines.cli.options import RESULTS, BookOption, ResultsOption, finite, output_file
from pipelines.cli.terminal import TerminalReporter, command_line, console, line

if TYPE_CHECKING:
    from pipelines.label_errors.data import LabelsToCheck
    from pipelines.label_errors.label_error import LabelError
    from pipelines.workspace.workspace import Workspace


class MethodChoice(StrEnum):
    """Methods that search for label errors."""

    DSMOE = "dsmoe"
    OBJECTLAB = "objectlab"
    OBJECTLAB_F1 = "objectlab-f1"
    MISTAKENNESS = "mistakenness"


OptionalWorkspace = Annotated[
    Path | None,
    typer.Argument(metavar="WORKSPACE", help="Workspace to check; default: the current folder."),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="DIR", help="Folder with labels and images/ to check instead of a workspace."
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="MODEL", help="Model that predicts; it must not have been trained on these images."
    ),
]
LabelsOption = Annotated[
    Path | None,
    typer.Option("--annotations", metavar="FILE|DIR", help="Labels; default: all splits in --data."),
]
MaxImagesOption = Annotated[
    int | None, typer.Option("--max-images", min=1, help="Use the first N labelled images only.")
]
ErrorsOption = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="FILE",
        help="File for the errors; default: label_errors.json in the workspace or the current folder.",
        callback=output_file,
    ),
]


def label_errors(
    workspace: OptionalWorkspace = None,
    data: DataOption = None,
    model: ModelOption = None,
    annotations: LabelsOption = None,
    predictions: Annotated[
        Path | None,
        typer.Option("--predictions", metavar="FILE", help="Predictions of `dsmoe predict` for --data."),
    ] = None,
    method: Annotated[
        MethodChoice, typer.Option("--method", help="How errors are found.")
    ] = MethodChoice.DSMOE,
    min_score: Annotated[
        float,
        typer.Option(
            "--min-score", min=0, max=1, help="Lowest score of an error that is written.", callback=finite
        ),
    ] = 0.3,
    show: Annotated[int, typer.Option("--show", min=0, help="Errors in the table.")] = 20,
    max_images: MaxImagesOption = None,
    class_book: BookOption = None,
    as_json: ErrorsOption = None,
    studio: Annotated[
        bool, typer.Option("--studio", help="Show the images in the view `Label errors` of Label Studio.")
    ] = False,
) -> None:
    """Rank boxes that are probably missed, misplaced or mislabelled, for review.

    In a workspace, the labels of an image are compared with the stored prediction of a model that was not
    trained on it.

    Example: `dsmoe label-errors boards --studio`, or
    `dsmoe label-errors --data deeppcb --model model --method objectlab`
    """
    from dsmoe_core.atomic import atomic_write
    from pipelines.label_errors.methods import LABEL_ERROR_METHODS

    with ExitStack() as stack:
        progress = stack.enter_context(TerminalReporter())
        opened = _open(stack, workspace, data, studio)
        checked = _labels(
            stack, opened, data, model, annotations, predictions, max_images, class_book, progress
        )
        progress.status("searching")
        found = checked.find(LABEL_ERROR_METHODS[method.value].find)
        errors = [error for error in found if error.score >= min_score]
        path = as_json or (opened.path if opened else Path()) / "label_errors.json"
        document = {
            "command": command_line(),
            "method": method.value,
            "images": len(checked.labelled),
            "left_out": checked.left_out,
            "models": dict(checked.models),
            "errors": [error.to_dict() for error in errors],
        }
        atomic_write(path, json.dumps(document, ensure_ascii=False, indent=1) + "\n")
        if studio and opened is not None:
            _show_in_studio(opened, errors)
    _report(checked, errors, show)
    line(f"{path} is written")


def benchmark(
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Folder with labels and images/.")],
    model: Annotated[
        str, typer.Option("--model", metavar="MODEL", help="Model that was not trained on these images.")
    ],
    annotations: LabelsOption = None,
    max_images: MaxImagesOption = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How often errors are planted.")] = 5,
    out: ResultsOption = RESULTS,
) -> None:
    """Plant label errors, and measure how well each method ranks them.

    5 % of the boxes each are shifted, relabelled and dropped. Also counts how often the check `labels`
    of the promotion gate refuses batches of 40 images with up to 30 % wrong boxes. Writes label_errors.json,
    one key per data set.

    Example: `dsmoe benchmark label-errors --data deeppcb --annotations deeppcb/val.json --model model`
    """
    from pipelines.benchmarks.label_errors import measure_gate, measure_label_errors
    from pipelines.benchmarks.results import update_result

    with ExitStack() as stack:
        progress = stack.enter_context(TerminalReporter())
        checked = _labels(stack, None, data, model, annotations, None, max_images, None, progress)
        progress.status("planting and ranking errors")
        numbers = list(range(seeds))
        measured = measure_label_errors(
            checked.labelled, checked.predictions, checked.classes, seeds=numbers, progress=progress.advance
        )
        progress.status("planting errors in batches, for the promotion gate")
        measured["gate"] = measure_gate(checked, seeds=numbers, progress=progress.advance)
    name = data.resolve().name
    path = out / "label_errors.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    measured = {"model": Path(model).resolve().name, **measured}
    update_result(path, {name: measured}, command=command_line(), seeds=numbers)
    console.print(_benchmark_table(name, measured))
    line(f"{path} is written")


def _open(stack: ExitStack, workspace: Path | None, data: Path | None, studio: bool) -> Workspace | None:
    """The workspace to check; None for a folder of labels."""
    from dsmoe_core.errors import SettingsError
    from pipelines.workspace.workspace import Workspace

    if data is None:
        return stack.enter_context(Workspace.open(workspace or Path()))
    if workspace is not None or studio:
        raise SettingsError(
            "--data is given together with a workspace or --studio", "Check either a folder or a workspace."
        )
    return None


def _labels(
    stack: ExitStack,
    opened: Workspace | None,
    data: Path | None,
    model: str | None,
    annotations: Path | None,
    predictions: Path | None,
    max_images: int | None,
    class_book: Path | None,
    progress: TerminalReporter,
) -> LabelsToCheck:
    """The labels and predictions that the options select."""
    from dsmoe_core.data.label_source import SplitChoice
    from dsmoe_core.errors import SettingsError
    from pipelines.evaluation.labels_of_folder import labels_of_folder
    from pipelines.evaluation.report.evaluated_model import load_evaluated_model
    from pipelines.label_errors.data import labels_of_workspace
    from pipelines.settings.environment import Environment
    from pipelines.settings.workspace import MAX_PIXELS
    from prompts.class_book import ClassBook

    if data is None and opened is not None:
        if any(option is not None for option in (model, annotations, predictions, class_book)):
            raise SettingsError(
                "--model, --annotations, --predictions and --class-book are for --data", "Add --data."
            )
        return labels_of_workspace(opened)
    if data is None or (model is None) == (predictions is None):
        raise SettingsError(
            "expected one of --model and --predictions with --data", "Give exactly one of them."
        )
    images = data / "images" if (data / "images").is_dir() else data
    parsed = read_labels(
        annotations or data, images, LabelRequest(), split=SplitChoice.ALL, default=Unlabelled.NEGATIVE
    )
    if predictions is not None:
        return _given(parsed, predictions, images, max_images)
    book = ClassBook.load(class_book) if class_book else None
    evaluated = load_evaluated_model(str(model), None, book, Environment.read())
    return stack.enter_context(
        labels_of_folder(
            parsed, images, evaluated, max_pixels=MAX_PIXELS, max_images=max_images, progress=progress
        )
    )


def _given(parsed: Any, predictions: Path, images: Path, max_images: int | None) -> LabelsToCheck:
    """Labels with the predictions of a file; no image is read."""
    from dsmoe_core.schema import ImageRecord, LabelledImage
    from pipelines.label_errors.data import LabelsToCheck, read_predictions

    labelled = tuple(
        LabelledImage(ImageRecord(e.name, e.name, images / e.name, e.width, e.height), e.annotations)
        for e in parsed.images[:max_images]
    )
    by_key = read_predictions(predictions, labelled, parsed.classes)
    return LabelsToCheck(labelled, by_key, parsed.classes, {predictions.stem: len(labelled)})


def _show_in_studio(workspace: Workspace, errors: list[LabelError]) -> None:
    """Give the tasks in Label Studio the highest score of their image, for the view `Label errors`."""
    from dsmoe_core.errors import WorkspaceError
    from pipelines.services.factory import start_studio
    from pipelines.settings.environment import Environment

    project = workspace.project()
    if project is None:
        raise WorkspaceError(
            "no round was sent to Label Studio so far", "Leave out --studio, or open a round first."
        )
    scores: dict[str, float] = {}
    for error in errors:
        scores[error.image.key] = max(error.score, scores.get(error.image.key, 0.0))
    server, _ = start_studio(workspace, Environment.read(), line)
    with workspace.locked():
        count = server.set_label_errors(project, scores)
    line(f"{count} task(s) are in the view `Label errors`")


def _report(checked: LabelsToCheck, errors: list[LabelError], show: int) -> None:
    """Print the most probable errors, and what was checked."""
    table = Table("kind", "score", "image", "class", "suggested", "reason")
    for error in errors[:show]:
        suggested = error.suggested_label if error.suggested_label != error.label else "-"
        table.add_row(
            str(error.kind), f"{error.score:.2f}", error.image.name, error.label, suggested, error.reason
        )
    if errors and show:
        console.print(table)
    models = ", ".join(f"{name} ({count})" for name, count in checked.models.items())
    line(f"{len(errors)} probable errors in {len(checked.labelled)} labelled images; predictions: {models}")
    if checked.left_out:
        line(f"{checked.left_out} images are left out: no prediction of a model that had not seen them")


def _benchmark_table(name: str, measured: dict[str, Any]) -> Table:
    from pipelines.benchmarks.label_error_table import average_precision_cell

    title = f"{name}: {measured['images']} images, {measured['boxes']} boxes; average precision"
    table = Table("method", *measured["planted"], title=title, title_justify="left")
    for method, row in measured["methods"].items():
        table.add_row(method, *(average_precision_cell(row[kind]) for kind in measured["planted"]))
    return table
