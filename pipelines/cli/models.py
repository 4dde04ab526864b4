"""Commands `dsmoe models list`, `show`, `promote` and `rollback`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from pipelines.cli.options import CURRENT_FOLDER, ReasonOption, WorkspaceArgument
from pipelines.cli.terminal import console, line

if TYPE_CHECKING:
    from pipelines.settings.rounds import RoundSettings
    from pipelines.workspace.operating_points import OperatingPoints

app = typer.Typer(help="Models of a workspace: list, show, promote, roll back.", no_args_is_help=True)


@app.command("list")
def list_(workspace: WorkspaceArgument = CURRENT_FOLDER) -> None:
    """List the models with their metrics and provenance.

    Example: `dsmoe models list boards`
    """
    from pipelines.benchmarks.markdown import score
    from pipelines.workspace.workspace import Workspace

    with Workspace.open(workspace) as opened:
        champion, cards = opened.champion(), opened.registry.cards()
        evaluations = {card.id: opened.registry.evaluation(card.id) for card in cards}
    table = Table(
        "model", "parent", "dataset version", "class book", "text encoder", "mAP@.5", "mAP@.5:.95", ""
    )
    for card in cards:
        metrics = evaluations[card.id]
        table.add_row(
            card.id,
            card.parent or "-",
            card.dataset_version,
            card.class_book,
            card.training.get("text_encoder", "-"),
            score(metrics.map50 if metrics else None),
            score(metrics.map if metrics else None),
            "champion" if card.id == champion else "",
        )
    console.print(table)


@app.command("show")
def show(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Id of the model.")],
    workspace: WorkspaceArgument = CURRENT_FOLDER,
) -> None:
    """Show a model's provenance and metrics, and which of its parts and experts are in use.

    Example: `dsmoe models show r2-1f0c77aa boards`
    """
    from pipelines.benchmarks.markdown import score
    from pipelines.workspace.workspace import Workspace

    with Workspace.open(workspace) as opened:
        card, registry = opened.registry.card(model), opened.registry
        metrics, parts = registry.evaluation(model), registry.parts(model)
        points, settings = registry.operating_points(model), opened.settings.round
    line(f"{card.id}: round {card.round}, from {card.parent or 'no model'}, {card.created_at:%Y-%m-%d %H:%M}")
    line(f"dataset version {card.dataset_version}, class book {card.class_book}")
    if metrics is None:
        line("not evaluated")
    else:
        line(f"mAP@.5 {score(metrics.map50)}, mAP@.5:.95 {score(metrics.map)}")
    for text in _threshold_lines(points, settings):
        line(text)
    if parts is None:
        line("the use of its parts was not measured: there is no test set, or the model has no experts")
        return
    lost = ", ".join(f"{name} {value:+.3f}" for name, value in parts.lost50.items())
    line(f"mAP@.5 lost without a part, on {parts.images} test images: {lost}")
    line(f"parts without effect: {', '.join(parts.unused) or 'none'}", "yellow" if parts.unused else "")
    idle = ", ".join(str(i + 1) for i in parts.idle_experts)
    line(f"idle experts: {idle or 'none'}", "yellow" if idle else "")
    if parts.class_information is not None:
        share = f"{parts.class_information:.0%}"
        line(f"the leading expert of a box has {share} of the information about its class")


def _threshold_lines(points: OperatingPoints | None, settings: RoundSettings) -> list[str]:
    """From which score on detections are shown to annotators, by class."""
    if settings.pre_annotation_score is not None:
        return [f"pre-annotations from score {settings.pre_annotation_score:.2f} on, by the settings"]
    if points is None:
        return ["pre-annotations from score 0.30 on: it was not evaluated on a test set"]
    scores = ", ".join(f"{label} {score:.2f}" for label, score in points.thresholds.items())
    source = f"{points.seconds.images} timed images" if points.seconds.images else "default times"
    return [
        f"pre-annotations from score: {scores or 'no detection on the test set'}, "
        f"other classes {points.other_classes:.2f}",
        f"they are kept with a probability of {points.min_probability:.0%} or more, which takes the least "
        f"correction time ({source})",
    ]


@app.command("promote")
def promote(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Id of the model.")],
    workspace: WorkspaceArgument = CURRENT_FOLDER,
    reason: ReasonOption = "promoted by hand",
) -> None:
    """Promote a model by hand; the next round pre-annotates with it and trains from it.

    Example: `dsmoe models promote r2-1f0c77aa boards --reason "fewer false positives"`
    """
    from pipelines.workspace.workspace import Workspace

    with Workspace.open(workspace) as opened, opened.locked():
        opened.registry.promote(model, reason)
    line(f"champion: {model}")


@app.command("rollback")
def rollback(
    workspace: WorkspaceArgument = CURRENT_FOLDER,
    reason: ReasonOption = "rolled back by hand",
) -> None:
    """Promote the previous champion again.

    Example: `dsmoe models rollback boards`
    """
    from pipelines.workspace.workspace import Workspace

    with Workspace.open(workspace) as opened, opened.locked():
        model = opened.registry.rollback(reason)
    line(f"champion: {model}")
