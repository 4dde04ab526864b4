"""dsmoe evaluate"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from dsmoe_core.data.import_account import ImportAccount, Unlabelled
from pipelines.cli.image_report import named
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
    ModelArgument,
    ResamplesOption,
    WorkspaceOption,
    finite,
    open_workspace_or_none,
    output_file,
    replaced_folder,
)
from pipelines.cli.terminal import TerminalReporter, command_line, console, line

if TYPE_CHECKING:
    from pipelines.evaluation.report.evaluate import EvaluationRequest
    from pipelines.workspace.workspace import Workspace


MAP_LABELS = {"map50": "mAP@.5", "map": "mAP@.5:.95"}
LABELS = {**MAP_LABELS, "precision": "precision", "recall": "recall", "f1": "F1"}
TruthOption = Annotated[
    Path,
    typer.Option(
        "--annotations", metavar="FILE|DIR", help="Ground truth: a COCO file, or a VOC or YOLO folder."
    ),
]

AlsoOption = Annotated[
    list[str] | None,
    typer.Option(
        "--also", metavar="MODEL", help="The same model trained from another seed; can be repeated."
    ),
]
AgainstOption = Annotated[
    list[str] | None,
    typer.Option(
        "--against",
        metavar="MODEL",
        help="Model to compare with, paired; with --also, one for each training.",
    ),
]
ByOption = Annotated[
    str | None,
    typer.Option(
        "--by",
        metavar="REGEX",
        help="Also evaluate groups of images by a part of their names; '^[^/]+' is the folder.",
    ),
]


MetricsOption = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write metrics.", callback=output_file)
]


def evaluate(
    model: ModelArgument,
    annotations: TruthOption,
    images: Annotated[Path, typer.Option("--images", metavar="DIR", help="Folder of the images.")],
    workspace: WorkspaceOption = None,
    also: AlsoOption = None,
    against: AgainstOption = None,
    class_book: BookOption = None,
    by: ByOption = None,
    as_json: MetricsOption = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="DIR",
            help="Write an HTML page with charts and images.",
            callback=replaced_folder,
        ),
    ] = None,
    score: Annotated[
        float,
        typer.Option(
            "--score",
            min=0,
            max=1,
            help="Evaluate at this score threshold, besides the best one.",
            callback=finite,
        ),
    ] = 0.3,
    resamples: ResamplesOption = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0, max=MAX_SEED, help="Seed of the resamples.")] = 42,
    intensity_max: IntensityMaxOption = None,
    strict: StrictOption = False,
    unlabelled: UnlabelledOption = None,
    predictions_as_labels: PredictionsOption = False,
) -> None:
    """Evaluate a model on any annotated images: metrics, error types, calibration, worst images.

    Example: `dsmoe evaluate champion --workspace boards --annotations val.json --images photos --report out`
    """
    from dsmoe_core.data.label_source import SplitChoice
    from pipelines.evaluation.report.evaluate import EvaluationRequest
    from pipelines.evaluation.report.groups import compile_pattern
    from pipelines.settings.workspace import MAX_PIXELS

    pattern = None if by is None else compile_pattern(by)
    if report is not None:
        from pipelines.evaluation.report.page import check_report_folder

        check_report_folder(report)
    labels = LabelRequest(strict, unlabelled, predictions_as_labels)
    parsed = read_labels(annotations, images, labels, split=SplitChoice.TEST, default=Unlabelled.NEGATIVE)
    with open_workspace_or_none(workspace) as opened:
        max_pixels = opened.settings.max_pixels if opened else MAX_PIXELS
        request = EvaluationRequest(
            parsed, annotations, images, score, resamples, seed, max_pixels, pattern, intensity_max, strict
        )
        metrics = _evaluate(request, [model, *(also or ())], against or (), opened, class_book, report)
    _write(metrics, as_json, report)


def _evaluate(
    request: EvaluationRequest,
    models: Sequence[str],
    baselines: Sequence[str],
    workspace: Workspace | None,
    class_book: Path | None,
    report: Path | None,
) -> dict[str, Any]:
    """Compute all metrics, and write the report while the images can be read."""
    from pipelines.evaluation.report.evaluate import run_evaluation
    from pipelines.evaluation.report.evaluated_model import load_evaluated_model
    from pipelines.evaluation.report.page import write_report
    from pipelines.settings.environment import Environment
    from prompts.class_book import ClassBook

    environment = Environment.read()
    book = ClassBook.load(class_book) if class_book else None
    loaded, loaded_baselines = (
        [load_evaluated_model(name, workspace, book, environment) for name in names]
        for names in (models, baselines)
    )
    with (
        TerminalReporter() as progress,
        run_evaluation(request, loaded, loaded_baselines, command_line(), progress) as result,
    ):
        if report is not None:
            progress.status("writing the report")
            write_report(report, result.metrics, result.worst)
        return result.metrics


def _write(metrics: dict[str, Any], as_json: Path | None, report: Path | None) -> None:
    from dsmoe_core.atomic import atomic_write
    from pipelines.evaluation.report.page import metrics_json

    if as_json is not None:
        atomic_write(as_json, metrics_json(metrics))
    _show(metrics)
    for path in (report / "report.html" if report else None, as_json):
        if path is not None:
            line(f"{path} is written")


def _show(metrics: dict[str, Any]) -> None:
    """Print what was left out, the tables and the comparison."""
    data = metrics["data"]
    show_accounts({"annotations": ImportAccount.from_dict(data["import"])})
    if data["intensity_scale"]:
        line(data["intensity_scale"])
    if data["clipped"]:
        line(f"images with brighter pixels, which are clipped: {named(data['clipped'])}", "yellow")
    console.print(_class_table(metrics))
    if "groups" in metrics:
        console.print(_group_table(metrics["groups"]))
    if "trainings" in metrics:
        console.print(_training_table(metrics["trainings"]))
        return
    baseline = metrics.get("against", {"metrics": {}})
    for name, label in MAP_LABELS.items():
        if name in baseline["metrics"]:
            row = baseline["metrics"][name]
            low, high = row["ci95"]
            gain = f"{row['delta']:+.3f} [{low:+.3f}, {high:+.3f}], p {row['p']:.3f}"
            line(f"{label} against {baseline['name']}: {gain}")


def _class_table(metrics: dict[str, Any]) -> Table:
    total, name, threshold = metrics["total"], metrics["model"]["name"], metrics["threshold"]
    title = f"{name}: {total['images']} images; precision, recall and F1 at score threshold {threshold:.3f}"
    table = Table("class", "boxes", "detections", *LABELS.values(), title=title, title_justify="left")
    for row in (*metrics["classes"], {"name": "all", **total}):
        point = row.get("best") or row["given"]
        values = (row.get("map50"), row.get("map"), *(point.get(n) for n in ("precision", "recall", "f1")))
        cells = ("-" if value is None else f"{value:.3f}" for value in values)
        table.add_row(row["name"], str(row["boxes"]), str(row["detections"]), *cells)
    return table


def _group_table(groups: Sequence[dict[str, Any]]) -> Table:
    """Metrics of each group at the threshold of all images, and its worst class."""
    table = Table("group", "images", "boxes", *LABELS.values(), "worst class")
    for row in groups:
        worst = min(row["classes"].items(), key=lambda item: item[1], default=None)
        cells = (f"{row[name]:.3f}" if name in row else "-" for name in LABELS)
        worst_class = f"{worst[0]} {worst[1]:.3f}" if worst else "-"
        table.add_row(row["name"], str(row["images"]), str(row["boxes"]), *cells, worst_class)
    return table


def _training_table(trainings: dict[str, Any]) -> Table:
    """Mean of each metric over trainings, and the tests against the baselines."""
    baseline = trainings.get("against", {"metrics": {}, "tests": {}})
    columns = ("over trainings", "against", "difference", "p over seeds", "p over images")
    title = f"{len(trainings['models'])} trainings: mean and 95 % interval"
    table = Table("", *columns[: 5 if baseline["tests"] else 1], title=title, title_justify="left")
    for name, label in LABELS.items():
        if name not in trainings["metrics"]:
            continue
        row = [label, _format_mean(trainings["metrics"][name])]
        if name in baseline["tests"]:
            seeds, images = baseline["tests"][name]["seeds"], baseline["tests"][name].get("images")
            low, high = seeds["ci95"]
            row += [
                _format_mean(baseline["metrics"][name]),
                f"{seeds['delta']:+.3f} [{low:+.3f}, {high:+.3f}]",
                f"{seeds['p']:.3f}",
                f"{images['p']:.3f}" if images else "-",
            ]
        table.add_row(*row)
    return table


def _format_mean(values: dict[str, Any]) -> str:
    low, high = values["ci95"]
    return f"{values['mean']:.3f} [{low:.3f}, {high:.3f}]"
