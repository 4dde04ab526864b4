"""Commands `dsmoe models list`, `promote` and `rollback`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from pipelines.cli.options import CURRENT_FOLDER, ReasonOption, WorkspaceArgument
from pipelines.cli.terminal import console, line

app = typer.Typer(help="Models of a workspace: list, promote, roll back.", no_args_is_help=True)


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
