"""dsmoe evaluate"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from pipelines.cli.options import BookOption, ModelArgument, WorkspaceOption, open_workspace_or_none
from pipelines.cli.terminal import TerminalReporter, command_line, console, line

if TYPE_CHECKING:
    from pipelines.evaluation.report.evaluate import EvaluationRequest
    from pipelines.workspace.workspace import Workspace


MAPS = (("map50", "mAP@.5"), ("map", "mAP@.5:.95"))
FIGURES = (*MAPS, ("precision", "precision"), ("recall", "recall"), ("f1", "F1"))
TruthOption = Annotated[
    Path, typer.Option("--annotations", metavar="FILE|DIR", help="The truth: COCO file, VOC or YOLO folder.")
]


def evaluate(
    model: ModelArgument,
    annotations: TruthOption,
    images: Annotated[Path, typer.Option("--images", metavar="DIR", help="Folder of the images.")],
    workspace: WorkspaceOption = None,
    also: Annotated[
        list[str] | None,
        typer.Option("--also", metavar="MODEL", help="The same trained from another seed; several times."),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against", metavar="MODEL", help="Compare with this model, paired; as many as with --also."
        ),
    ] = None,
    class_book: BookOption = None,
    by: Annotated[
        str | None,
        typer.Option(
            "--by", metavar="REGEX", help="Figures for each part of file names too: '^[^/]+': folder."
        ),
    ] = None,
    as_json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all figures.")] = None,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="DIR", help="Write a page with charts and images.")
    ] = None,
    score: Annotated[
        float, typer.Option("--score", min=0, max=1, help="Judge at this threshold too, beside the best.")
    ] = 0.3,
    resamples: Annotated[
        int, typer.Option("--resamples", min=100, help="Of the images, for intervals and p.")
    ] = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of resamples and halves.")] = 42,
) -> None:
    """Judge a model on any annotated images: scores, errors, calibration, worst images.

    Example: `dsmoe evaluate champion --workspace boards --annotations val.json --images photos --report out`
    """
    from dsmoe_core.data.formats import read_annotations
    from pipelines.evaluation.report.evaluate import EvaluationRequest
    from pipelines.evaluation.report.groups import compile_pattern
    from pipelines.settings import MAX_PIXELS

    pattern = None if by is None else compile_pattern(by)
    if report is not None:
        from pipelines.evaluation.report.page import check

        check(report)
    known = read_annotations(annotations, images)
    with open_workspace_or_none(workspace) as opened:
        most = opened.settings.max_pixels if opened else MAX_PIXELS
        question = EvaluationRequest(known, annotations, images, score, resamples, seed, most, pattern)
        measured = _judge(question, [model, *(also or ())], against or (), opened, class_book, report)
    _keep(measured, as_json, report)


def _judge(
    question: EvaluationRequest,
    models: Sequence[str],
    against: Sequence[str],
    workspace: Workspace | None,
    class_book: Path | None,
    report: Path | None,
) -> dict[str, Any]:
    """All figures; the report is drawn while the images are at hand."""
    from pipelines.evaluation.report import page
    from pipelines.evaluation.report.evaluate import run_evaluation
    from pipelines.evaluation.report.evaluated_model import load_evaluated_model
    from pipelines.settings import Environment
    from prompts.class_book import ClassBook

    environment = Environment.read()
    book = ClassBook.load(class_book) if class_book else None
    these, others = (
        [load_evaluated_model(m, workspace, book, environment) for m in side] for side in (models, against)
    )
    with (
        TerminalReporter() as progress,
        run_evaluation(question, these, others, command_line(), progress) as answer,
    ):
        if report is not None:
            progress.status("writing the report")
            page.write(report, answer.measured, answer.worst)
        return answer.measured


def _keep(measured: dict[str, Any], as_json: Path | None, report: Path | None) -> None:
    from dsmoe_core.atomic import atomic_write
    from pipelines.evaluation.report.page import metrics_json

    if as_json is not None:
        atomic_write(as_json, metrics_json(measured))
    _show(measured)
    for written in (report / "report.html" if report else None, as_json):
        if written is not None:
            line(f"{written} is written")


def _show(measured: dict[str, Any]) -> None:
    """What was left out, the table, and the comparison."""
    total, left_out = measured["total"], measured["data"]["left_out"]
    for note in measured["data"]["notes"]:
        line(note, "yellow")
    if left_out:
        boxes = sum(one["boxes"] for one in left_out)
        line(f"{len(left_out)} images with {boxes} boxes cannot be read and are in no figure:", "yellow")
        for one in left_out[:10]:
            line(f"  {one['name']}: {one['reason']}", "yellow")
        if len(left_out) > 10:
            line(f"  and {len(left_out) - 10} more, which --json and --report list", "yellow")
    names = ("mAP@.5", "mAP@.5:.95", "precision", "recall", "F1")
    name, threshold = measured["model"]["name"], measured["threshold"]
    title = f"{name}: {total['images']} images; precision, recall and F1 from score {threshold:.3f}"
    table = Table("class", "boxes", "detections", *names, title=escape(title), title_justify="left")
    for row in (*measured["classes"], {"name": "all", **total}):
        point = row.get("best") or row["given"]
        shares = (row.get("map50"), row.get("map"), *(point.get(n) for n in ("precision", "recall", "f1")))
        shown = ("-" if share is None else f"{share:.3f}" for share in shares)
        table.add_row(escape(row["name"]), str(row["boxes"]), str(row["detections"]), *shown)
    console.print(table)
    if "groups" in measured:
        _show_groups(measured["groups"])
    other, trainings = measured.get("against"), measured.get("trainings")
    if trainings:
        _show_trainings(trainings)
    for name, label in MAPS:
        if other and not trainings and name in other["figures"]:
            row = other["figures"][name]
            low, high = row["ci95"]
            gain = f"{row['delta']:+.3f} [{low:+.3f}, {high:+.3f}], p {row['p']:.3f}"
            line(f"{label} against {other['name']}: {gain}")


def _show_groups(groups: Sequence[dict[str, Any]]) -> None:
    """Each group's figures, at the threshold of all images, and the class that it is worst at."""
    table = Table("group", "images", "boxes", *(label for _, label in FIGURES), "worst class")
    for row in groups:
        worst = min(row["classes"].items(), key=lambda one: one[1], default=None)
        shown = (f"{row[name]:.3f}" if name in row else "-" for name, _ in FIGURES)
        last = f"{worst[0]} {worst[1]:.3f}" if worst else "-"
        table.add_row(escape(row["name"]), str(row["images"]), str(row["boxes"]), *shown, escape(last))
    console.print(table)


def _show_trainings(measured: dict[str, Any]) -> None:
    """Each figure over trainings, and what the tests say of the others."""
    other = measured.get("against", {"figures": {}, "tests": {}})
    columns = ("over trainings", "against", "difference", "p over seeds", "p over images")
    title = f"{len(measured['models'])} trainings: mean and 95 % interval"
    table = Table("", *columns[: 5 if other["tests"] else 1], title=title, title_justify="left")
    for name, label in FIGURES:
        if name not in measured["figures"]:
            continue
        row = [label, _mean(measured["figures"][name])]
        if name in other["tests"]:
            seeds, images = other["tests"][name]["seeds"], other["tests"][name].get("images")
            low, high = seeds["ci95"]
            row += [_mean(other["figures"][name]), f"{seeds['delta']:+.3f} [{low:+.3f}, {high:+.3f}]"]
            row += [f"{seeds['p']:.3f}", f"{images['p']:.3f}" if images else "-"]
        table.add_row(*map(escape, row))
    console.print(table)


def _mean(figure: dict[str, Any]) -> str:
    low, high = figure["ci95"]
    return f"{figure['mean']:.3f} [{low:.3f}, {high:.3f}]"
