"""dsmoe classes evaluate"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from pipelines.cli.options import WorkspaceOption, open_workspace_or_none
from pipelines.cli.terminal import TerminalReporter, command_line, console, line

if TYPE_CHECKING:
    from pipelines.evaluation.text_eval.evaluate import TextEvaluationRequest
    from pipelines.workspace.workspace import Workspace

SHOWN = ("map", "margin")  # the terminal is narrow; the page has mAP@.5 too
COLOURS = {"better": "green", "no worse": "green", "worse": "red", "undecided": "yellow"}


def evaluate(
    this: Annotated[
        str, typer.Argument(metavar="A", help="The class book to judge: a file, version, or `working`.")
    ],
    other: Annotated[
        str, typer.Argument(metavar="B", help="What it is compared with, named in the same way.")
    ] = "published",
    workspace: WorkspaceOption = None,
    model: Annotated[
        str, typer.Option("--model", metavar="MODEL", help="The one that reads both: an id, or a folder.")
    ] = "champion",
    annotations: Annotated[
        Path | None,
        typer.Option(
            "--annotations", metavar="FILE|DIR", help="Judge on these; default: the workspace's test set."
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", metavar="DIR", help="Folder of their images.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option("--tolerance", min=0, max=1, help="Loss of mAP@.5:.95 that is no loss.")
    ] = 0.01,
    as_json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the judge report.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="DIR", help="Write a page with charts.")
    ] = None,
    resamples: Annotated[
        int, typer.Option("--resamples", min=100, help="Of the images, for intervals and p.")
    ] = 1000,
    draws: Annotated[int, typer.Option("--draws", min=1, help="Of random words; their mean counts.")] = 3,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of resamples and random words.")] = 42,
) -> None:
    """Judge a class book by what it does: one model reads it, another book, names, random and swapped texts.

    The verdict rests on the paired 95 % interval of the gain in mAP@.5:.95. better: all above zero. no worse:
    not below minus the tolerance. worse: all below zero. undecided: a gain as well as a loss may be.

    Example: `dsmoe classes evaluate new.yaml published --workspace boards --report out`
    """
    from pipelines.evaluation.text_eval import page
    from pipelines.evaluation.text_eval.class_pairing import resolve_class_book
    from pipelines.evaluation.text_eval.evaluate import TextEvaluationRequest

    if report is not None:
        page.check(report)
    with open_workspace_or_none(workspace) as opened, TerminalReporter() as progress:
        books = resolve_class_book(this, opened), resolve_class_book(other, opened)
        question = TextEvaluationRequest(
            *books, tolerance=tolerance, resamples=resamples, seed=seed, draws=draws
        )
        measured = _judged(question, model, annotations, images, opened, progress)
        written = _keep(measured, as_json, report)
        publishing = _publishing(opened, this, measured)
    _show(measured)
    if as_json and publishing:
        written.append(f"Publish it with `{publishing} --report {as_json} --workspace {workspace or Path()}`")
    for words in written:
        line(words)


def _judged(
    question: TextEvaluationRequest,
    model: str,
    annotations: Path | None,
    images: Path | None,
    opened: Workspace | None,
    progress: TerminalReporter,
) -> dict[str, Any]:
    from pipelines.evaluation.report.evaluated_model import load_evaluated_model
    from pipelines.evaluation.text_eval.eval_set import open_evaluation_set
    from pipelines.evaluation.text_eval.evaluate import evaluate_class_book
    from pipelines.settings import Environment

    reader = load_evaluated_model(model, opened, question.this, Environment.read())
    with open_evaluation_set(opened, annotations, images, progress) as data:
        return evaluate_class_book(question, reader, data, command_line(), progress)


def _keep(measured: dict[str, Any], as_json: Path | None, report: Path | None) -> list[str]:
    """Write what is asked for, and say so."""
    from dsmoe_core.atomic import atomic_write
    from pipelines.evaluation.report.page import metrics_json
    from pipelines.evaluation.text_eval import page

    if report is not None:
        page.write(report, measured)
    if as_json is not None:
        atomic_write(as_json, metrics_json(measured))
    return [f"{path} is written" for path in (report and report / "report.html", as_json) if path]


def _publishing(opened: Workspace | None, this: str, measured: dict[str, Any]) -> str | None:
    """The command that publishes what was judged; None where that is not what comes next."""
    from prompts.evaluation_report import TextEvaluationReport

    report = TextEvaluationReport.model_validate(measured)
    if opened is None or not report.allows_publishing or report.book == report.against:
        return None
    books = opened.class_books
    if report.against != books.published_version():
        return None
    if this == "working":
        return "dsmoe classes publish"
    saved = {version.id for version in books.store.versions()}
    return f"dsmoe classes publish {report.book}" if report.book in saved else None


def _show(measured: dict[str, Any]) -> None:
    """What was left out, the two tables, the verdict."""
    left_out = measured["left_out"]
    for note in measured["notes"]:
        line(note, "yellow")
    if left_out["images"]:
        boxes = sum(one["boxes"] for one in left_out["images"])
        unread = f"{len(left_out['images'])} images with {boxes} boxes cannot be read"
        line(f"{unread} and are in no figure", "yellow")
    for side, version in (("this", measured["book"]), ("other", measured["against"])):
        if left_out[side]:
            line(f"only in {version}, and left out: {', '.join(left_out[side])}", "yellow")
    if left_out["boxes"]:
        line(f"{left_out['boxes']} true boxes are of such classes and count for nothing", "yellow")
    console.print(_classes(measured))
    console.print(_controls(measured))
    line(measured["text_effect"]["sentence"])
    line(measured["reason"], COLOURS[measured["verdict"]])


def _classes(measured: dict[str, Any]) -> Table:
    title = (
        f"{measured['book']} against {measured['against']}, read by {measured['model']}: {measured['data']}"
    )
    head = ("class", "boxes", "mAP@.5:.95", "gain [95 %]", "margin", "gain [95 %]")
    table = Table(*head, "taken for", title=escape(title), title_justify="left")
    for row in (*measured["classes"], {"name": "mean", "boxes": measured["boxes"], **measured["total"]}):
        cells = (cell for name in SHOWN for cell in _cells(row.get(name), "this"))
        table.add_row(escape(row["name"]), str(row["boxes"]), *cells, escape(row.get("rival", "-")))
    return table


def _controls(measured: dict[str, Any]) -> Table:
    head = ("asked in", "mAP@.5:.95", "right less this", "margin", "right less this")
    table = Table(*head, title=f"{measured['book']} against controls", title_justify="left")
    for row in measured["controls"]:
        cells = (cell for name in SHOWN for cell in _cells(row["total"].get(name), "other"))
        table.add_row(row["words"], *cells)
    return table


def _cells(figure: dict[str, Any] | None, side: str) -> tuple[str, str]:
    from pipelines.evaluation.text_eval.verdict import shown

    return ("-", "-") if figure is None else (f"{figure[side]:.3f}", shown(figure))
