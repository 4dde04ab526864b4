"""dsmoe explain"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from pipelines.cli.options import CURRENT_FOLDER, WorkspaceArgument
from pipelines.cli.terminal import console, line

if TYPE_CHECKING:
    from pipelines.workspace.lineage import AnnotationRecord, Lineage, ModelOrigin


def explain(
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="Task id of Label Studio, or name or key of an image.")
    ],
    workspace: WorkspaceArgument = CURRENT_FOLDER,
    detection: Annotated[
        int | None,
        typer.Option("--detection", min=0, help="Only this detection, counted from 0; default: all."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Where the boxes of an image come from: model, data, class book, round, reason, annotators; later use.

    Example: `dsmoe explain 17 boards --detection 0`
    """
    from pipelines.workspace.lineage import explain as lineage_of
    from pipelines.workspace.workspace import Workspace

    with Workspace.open(workspace) as opened:
        lineage = lineage_of(opened, target, detection)
    if as_json:
        typer.echo(json.dumps(lineage.to_dict(), ensure_ascii=False, indent=1))
        return
    _show(lineage)


def _show(lineage: Lineage) -> None:
    line(f"{lineage.name} ({lineage.role}), key {lineage.key}")
    if lineage.round is None:
        line("never sent to annotators")
    else:
        task = "not in Label Studio yet" if lineage.task_id is None else f"task {lineage.task_id}"
        line(f"round {lineage.round}, {task}, arm {lineage.arm}: {lineage.reason}")
    _show_model(lineage.model)
    if lineage.experts:
        line("experts: " + ", ".join(f"{index} ({weight:.0%})" for index, weight in lineage.experts))
    if lineage.detections:
        console.print(_detection_table(lineage))
    _show_annotation(lineage.annotation)
    line(f"dataset versions: {', '.join(lineage.dataset_versions) or 'none'}")
    line(f"models trained on it: {', '.join(lineage.trained_models) or 'none'}")


def _show_model(model: ModelOrigin | None) -> None:
    if model is None:
        line("no pre-annotations")
        return
    line(
        f"pre-annotations of model {model.id} (round {model.round}, parent {model.parent or 'none'}), "
        f"class book {model.class_book}, dataset version {model.dataset_version}, "
        f"code {model.commit or 'unknown'}"
    )


def _detection_table(lineage: Lineage) -> Table:
    table = Table("detection", "class", "score", "second best", "expert", "box", "outcome", "annotated as")
    for d in lineage.detections:
        second = f"{d.second_best[0]} {d.second_best[1]:.2f}" if d.second_best else "-"
        corners = " ".join(f"{v:.0f}" for v in d.box)
        expert = "-" if d.expert is None else str(d.expert)
        annotated = "-" if d.annotated is None else str(d.annotated["label"])
        table.add_row(
            str(d.index), d.label, f"{d.score:.2f}", second, expert, corners, d.outcome or "-", annotated
        )
    return table


def _show_annotation(annotation: AnnotationRecord | None) -> None:
    if annotation is None:
        line("no annotation came back")
        return
    who = ", ".join(annotation.annotators)
    state = "labelled" if annotation.labelled else annotation.doubt or "skipped"
    counts = ", ".join(f"{count} {outcome}" for outcome, count in annotation.counts.items() if count)
    by = f"annotator {who}" if who else "imported"
    line(f"{state}, {annotation.boxes} boxes, {by}, {annotation.updated_at:%Y-%m-%d %H:%M} ({counts or '-'})")
    if annotation.note:
        line(f"note: {annotation.note}")
