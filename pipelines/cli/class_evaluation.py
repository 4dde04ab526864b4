"""dsmoe classes evaluate"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from dsmoe_core.data.import_account import Unlabelled
from pipelines.cli.labels import (
    LabelRequest,
    PredictionsOption,
    StrictOption,
    UnlabelledOption,
    show_accounts,
)
from pipelines.cli.options import (
    MAX_SEED,
    ResamplesOption,
    WorkspaceOption,
    finite,
    open_workspace_or_none,
    output_file,
    replaced_folder,
)
from pipelines.cli.terminal import TerminalReporter, command_line, console, line

if TYPE_CHECKING:
    from pipelines.evaluation.text_eval.evaluate import TextEvaluationRequest
    from pipelines.workspace.workspace import Workspace

JsonOption = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Write the evaluation report as JSON.", callback=output_file),
]
ReportOption = Annotated[
    Path | None,
    typer.Option("--report", metavar="DIR", help="Write an HTML page with charts.", callback=replaced_folder),
]
TextSeedOption = Annotated[
    int, typer.Option("--seed", min=0, max=MAX_SEED, help="Seed of resamples and random words.")
]
TABLE_METRICS = ("map", "margin")
"""Metrics in the terminal's tables; the report also has mAP@.5."""
COLOURS = {"better": "green", "no worse": "green", "worse": "red", "undecided": "yellow"}

AnnotationsOption = Annotated[
    Path | None,
    typer.Option(
        "--annotations",
        metavar="FILE|DIR",
        help="Annotated images to evaluate on; default: the workspace's test set.",
    ),
]


def evaluate(
    this: Annotated[
        str, typer.Argument(metavar="A", help="Class book to evaluate: a file, a version, or `working`.")
    ],
    other: Annotated[
        str, typer.Argument(metavar="B", help="Class book to compare it with, named in the same way.")
    ] = "published",
    workspace: WorkspaceOption = None,
    model: Annotated[
        str, typer.Option("--model", metavar="MODEL", help="Model to run with both: an id, or a folder.")
    ] = "champion",
    annotations: AnnotationsOption = None,
    images: Annotated[
        Path | None, typer.Option("--images", metavar="DIR", help="Folder of these images.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option("--tolerance", min=0, max=1, help="Accepted loss of mAP@.5:.95.", callback=finite)
    ] = 0.01,
    as_json: JsonOption = None,
    report: ReportOption = None,
    resamples: ResamplesOption = 1000,
    draws: Annotated[int, typer.Option("--draws", min=1, help="Averaged draws of random words.")] = 3,
    seed: TextSeedOption = 42,
    strict: StrictOption = False,
    unlabelled: UnlabelledOption = None,
    predictions_as_labels: PredictionsOption = False,
) -> None:
    """Evaluate a class book by its effect on a model, against another book, names, random and swapped texts.

    The verdict depends on the paired 95 % interval of the gain in mAP@.5:.95. better: all of it is above 0.
    no worse: none is below minus the tolerance. worse: all is below 0. undecided: otherwise.

    Example: `dsmoe classes evaluate new.yaml published --workspace boards --report out`
    """
    from pipelines.evaluation.text_eval import page
    from pipelines.evaluation.text_eval.class_pairing import resolve_class_book
    from pipelines.evaluation.text_eval.evaluate import TextEvaluationRequest

    page.check_report_folder(report) if report is not None else None
    with open_workspace_or_none(workspace) as opened, TerminalReporter() as progress:
        books = resolve_class_book(this, opened), resolve_class_book(other, opened)
        request = TextEvaluationRequest(*books, tolerance, resamples, seed, draws)
        labels = LabelRequest(strict, unlabelled, predictions_as_labels)
        metrics = _evaluate(request, model, annotations, images, labels, opened, progress)
        written = _write(metrics, as_json, report)
        command = _publish_command(opened, this, metrics)
    _show(metrics)
    for path in written:
        line(f"{path} is written")
    if as_json and command:
        line(f"Publish it with `{command} --report {as_json} --workspace {workspace or Path()}`")


def _evaluate(
    request: TextEvaluationRequest,
    model: str,
    annotations: Path | None,
    images: Path | None,
    labels: LabelRequest,
    workspace: Workspace | None,
    progress: TerminalReporter,
) -> dict[str, Any]:
    from dsmoe_core.data.label_source import ReadOptions, SplitChoice
    from pipelines.evaluation.report.evaluated_model import load_evaluated_model
    from pipelines.evaluation.text_eval.eval_set import open_evaluation_set
    from pipelines.evaluation.text_eval.evaluate import evaluate_class_book
    from pipelines.settings.environment import Environment

    evaluated = load_evaluated_model(model, workspace, request.this, Environment.read())
    options = ReadOptions(SplitChoice.TEST, labels.accept_predictions, labels.strict)
    unlabelled = labels.unlabelled or Unlabelled.NEGATIVE
    with open_evaluation_set(
        workspace, annotations, images, progress, options=options, unlabelled=unlabelled
    ) as data:
        if data.account is not None:
            show_accounts({"annotations": data.account})
        return evaluate_class_book(request, evaluated, data, command_line(), progress)


def _write(metrics: dict[str, Any], as_json: Path | None, report: Path | None) -> list[Path]:
    """Write the requested files, and return their paths."""
    from dsmoe_core.atomic import atomic_write
    from pipelines.evaluation.report.page import metrics_json
    from pipelines.evaluation.text_eval import page

    if report is not None:
        page.write_report(report, metrics)
    if as_json is not None:
        atomic_write(as_json, metrics_json(metrics))
    return [path for path in (report and report / "report.html", as_json) if path]


def _publish_command(workspace: Workspace | None, this: str, metrics: dict[str, Any]) -> str | None:
    """The command that publishes the evaluated book; None if the report does not allow it."""
    from prompts.evaluation_report import TextEvaluationReport

    report = TextEvaluationReport.model_validate(metrics)
    if workspace is None or not report.allows_publishing or report.book == report.against:
        return None
    books = workspace.class_books
    if report.against != books.published_version():
        return None
    if this == "working":
        return "dsmoe classes publish"
    saved = {version.id for version in books.store.versions()}
    return f"dsmoe classes publish {report.book}" if report.book in saved else None


def _show(metrics: dict[str, Any]) -> None:
    """Print what was left out, the tables and the verdict."""
    left_out = metrics["left_out"]
    for note in metrics["notes"]:
        line(note, "yellow")
    if left_out["images"]:
        boxes = sum(image["boxes"] for image in left_out["images"])
        unread = f"{len(left_out['images'])} images with {boxes} boxes cannot be read"
        line(f"{unread} and are not evaluated", "yellow")
    for side, version in (("this", metrics["book"]), ("other", metrics["against"])):
        if left_out[side]:
            line(f"classes that only {version} has, not evaluated: {', '.join(left_out[side])}", "yellow")
    if left_out["boxes"]:
        line(f"{left_out['boxes']} ground-truth boxes of these classes are ignored", "yellow")
    console.print(_class_table(metrics))
    console.print(_control_table(metrics))
    line(metrics["text_effect"]["sentence"])
    line(metrics["reason"], COLOURS[metrics["verdict"]])


def _class_table(metrics: dict[str, Any]) -> Table:
    title = (
        f"{metrics['book']} compared with {metrics['against']}: model {metrics['model']}, {metrics['data']}"
    )
    head = ("class", "boxes", "mAP@.5:.95", "gain [95 %]", "margin", "gain [95 %]")
    table = Table(*head, "confused with", title=title, title_justify="left")
    for row in (*metrics["classes"], {"name": "mean", "boxes": metrics["boxes"], **metrics["total"]}):
        cells = (cell for name in TABLE_METRICS for cell in _cells(row.get(name), "this"))
        table.add_row(row["name"], str(row["boxes"]), *cells, row.get("confused_with", "-"))
    return table


def _control_table(metrics: dict[str, Any]) -> Table:
    head = ("text", "mAP@.5:.95", "descriptions - this", "margin", "descriptions - this")
    table = Table(*head, title=f"{metrics['book']} compared with controls", title_justify="left")
    for row in metrics["controls"]:
        cells = (cell for name in TABLE_METRICS for cell in _cells(row["total"].get(name), "other"))
        table.add_row(row["control"], *cells)
    return table


def _cells(values: dict[str, Any] | None, side: str) -> tuple[str, str]:
    from pipelines.evaluation.text_eval.verdict import format_difference

    return ("-", "-") if values is None else (f"{values[side]:.3f}", format_difference(values))
