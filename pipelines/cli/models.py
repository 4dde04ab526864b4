"""dsmoe models list, promote, rollback"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from pipelines.cli.options import CURRENT_FOLDER, WorkspaceArgument
from pipelines.cli.terminal import console, line

app = typer.Typer(help="The models of a workspace and which is champion.", no_args_is_help=True)


@app.command("list")
def list_(workspace: WorkspaceArgument = CURRENT_FOLDER) -> None:
    """Show the models with their figures and where they come from.

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
        figures = evaluations[card.id]
        table.add_row(
            card.id,
            card.parent or "-",
            card.dataset_version,
            card.class_book,
            card.training.get("text_encoder", "-"),
            score(figures.map50 if figures else None),
            score(figures.map if figures else None),
            "champion" if card.id == champion else "",
        )
    console.print(table)


@app.command("promote")
def promote(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Id of the model.")],
    workspace: WorkspaceArgument = CURRENT_FOLDER,
    reason: Annotated[str, typer.Option("--reason", help="Kept in the history.")] = "promoted by hand",
) -> None:
    """Make a model champion by hand; the next round pre-annotations and trains from it.

    Example: `dsmoe models promote r2-1f0c77aa boards --reason "fewer false alarms on the line"`
    """
    from pipelines.workspace.workspace import Workspace

    with Workspace.open(workspace) as opened, opened.locked():
        opened.registry.promote(model, reason)
    line(f"champion: {model}")


@app.command("rollback")
def rollback(
    workspace: WorkspaceArgument = CURRENT_FOLDER,
    reason: Annotated[str, typer.Option("--reason", help="Kept in the history.")] = "rolled back by hand",
) -> None:
    """Make the champion before the present one champion again.

    Example: `dsmoe models rollback boards`
    """
    from pipelines.workspace.workspace import Workspace

    with Workspace.open(workspace) as opened, opened.locked():
        model = opened.registry.rollback(reason)
    line(f"champion: {model}")
