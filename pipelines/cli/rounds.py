"""Commands `dsmoe round open`, `close` and `notes`, `dsmoe status` and `dsmoe annotate`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.options import CURRENT_FOLDER, PortOption, WorkspaceArgument
from pipelines.cli.terminal import (
    TerminalReporter,
    console,
    effort_table,
    line,
    notes_table,
    rounds_table,
    show_sign_in,
)

if TYPE_CHECKING:
    from annotate.studio.protocol import Connection
    from pipelines.rounds.context import LoopContext
    from pipelines.workspace.workspace import Workspace

app = typer.Typer(help="Rounds: send images to annotators, import their corrections.", no_args_is_help=True)


@contextmanager
def open_context(path: Path, port: int | None) -> Iterator[tuple[LoopContext, Connection | None]]:
    """Open and lock a workspace, and start its services.

    Args:
        path: folder of the workspace.
        port: of Label Studio; None for the workspace's.

    Yields:
        The context, and how to connect to Label Studio; None for the stub.
    """
    from pipelines.services import factory
    from pipelines.settings.environment import Environment
    from pipelines.workspace.workspace import Workspace

    environment = Environment.read()
    with Workspace.open(path) as workspace, workspace.locked(), TerminalReporter() as progress:
        yield factory.loop_context(workspace, environment, progress, progress.status, port)


@app.command("open")
def open_(workspace: WorkspaceArgument = CURRENT_FOLDER, port: PortOption = None) -> None:
    """Select the most informative images, pre-annotate them and send them to Label Studio.

    Example: `dsmoe round open boards`
    """
    from pipelines.rounds.loop import open_round

    with open_context(workspace, port) as (context, connection):
        row = open_round(context)
        project, note = context.project(), context.workspace.class_books.unpublished_note()
        left_out = images_left_out(context.workspace, row.round)
    line(f"round {row.round} is open: {row.answered} of {row.sent} images are annotated")
    for text in left_out_lines(row.round, left_out):
        line(text)
    if note:
        line(note)
    if connection is not None:
        show_sign_in(connection, f"{connection.url}/projects/{project}/")


@app.command("close")
def close(
    workspace: WorkspaceArgument = CURRENT_FOLDER,
    port: PortOption = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Close although some images are not annotated.")
    ] = False,
) -> None:
    """Import the corrections, retrain, evaluate on the test set, and promote or refuse the model.

    Example: `dsmoe round close boards`
    """
    from pipelines.cli.harvest_account import account_lines
    from pipelines.rounds.loop import close_round

    with open_context(workspace, port) as (context, _):
        row = close_round(context, partial=partial)
        account = context.workspace.round_account(row.round)
        file = context.workspace.round_account_file(row.round)
    if account is not None:
        for text in account_lines(account, file):
            line(text)
    line(f"round {row.round} is closed; {row.reason}")


@app.command("notes")
def notes(workspace: WorkspaceArgument = CURRENT_FOLDER) -> None:
    """List the images that annotators marked as doubtful or commented on, for the domain expert.

    A doubtful image does not count as labelled until the doubt is removed in Label Studio.

    Example: `dsmoe round notes boards`
    """
    from pipelines.workspace.round_summary import notes as annotator_notes
    from pipelines.workspace.workspace import Workspace

    with Workspace.open(workspace) as opened:
        images = {key: image.name for key, image in opened.images_by_key().items()}
        rows = annotator_notes(opened.journal.tasks(), opened.journal.harvests())
    if not rows:
        line("No image is doubtful, and there are no notes")
        return
    console.print(notes_table(rows, images))


def images_left_out(workspace: Workspace, number: int) -> dict[str, int]:
    """Number of images that the selection of a round left in the pool, by reason."""
    chosen = workspace.journal.finished(number, "choose") or {}
    return {str(reason): int(count) for reason, count in chosen.get("left_out", {}).items()}


def left_out_lines(number: int, reasons: Mapping[str, int]) -> list[str]:
    """One line for each reason why images were left in the pool."""
    return [
        f"round {number}: {count} images stay in the pool: each {reason}" for reason, count in reasons.items()
    ]


def status(
    workspace: WorkspaceArgument = CURRENT_FOLDER,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show the rounds of a workspace: metrics, control arm, blind audit, and whether labelling can stop.

    Example: `dsmoe status boards`
    """
    from pipelines.rounds.audit import audit_sentences
    from pipelines.rounds.stopping import signals, stop_sentences
    from pipelines.workspace.round_summary import explain_rounds
    from pipelines.workspace.workspace import Workspace

    with Workspace.open(workspace) as opened:
        rows, champion, title = opened.rounds(), opened.champion(), opened.settings.title
        pool, test = len(opened.images("pool")), len(opened.images("test"))
        book, note = opened.class_book().version, opened.class_books.unpublished_note()
        intensity_max = opened.intensity_max()
        left_out = {row.round: images_left_out(opened, row.round) for row in rows}
    if as_json:
        summary = {"title": title, "champion": champion, "class_book": book, "pool": pool, "test": test}
        summary["intensity_max"] = intensity_max
        states = [row.as_result() | row.as_effort() | {"left_out": left_out[row.round]} for row in rows]
        typer.echo(json.dumps({**summary, **signals(rows), "rounds": states}, indent=2))
        return
    console.print(rounds_table(rows, f"{title}: {pool} images in the pool, {test} in the test set"))
    for sentence in explain_rounds(rows):
        line(sentence)
    for number, reasons in left_out.items():
        for text in left_out_lines(number, reasons):
            line(text)
    if any(row.effort for row in rows):
        console.print(effort_table(rows))
    for sentence in (*audit_sentences(rows), *stop_sentences(rows)):
        line(sentence)
    line(f"champion: {champion or 'none yet'}; class book: {book}")
    if intensity_max is not None:
        line(f"images of more than 8 bits: value {intensity_max} is white in all of them")
    if note:
        line(note)


def annotate(
    simulated: Annotated[
        Path,
        typer.Option("--simulated", metavar="FILE|DIR", help="True labels: COCO file, VOC or YOLO folder."),
    ],
    workspace: WorkspaceArgument = CURRENT_FOLDER,
    port: PortOption = None,
) -> None:
    """Let a simulated annotator correct the open round in Label Studio, using the true labels.

    Example: `dsmoe annotate boards --simulated train.json`
    """
    from dsmoe_core.errors import WorkspaceError
    from pipelines.rounds.simulated_annotator import load_truth, simulated_annotator

    with open_context(workspace, port) as (context, _):
        rows = context.workspace.rounds()
        if not rows or rows[-1].state != "open":
            state = f"; round {rows[-1].round} is {rows[-1].state}" if rows else ", and there was none so far"
            command = "close" if rows and rows[-1].state == "closing" else "open"
            raise WorkspaceError(f"no round is open{state}", f"Run `dsmoe round {command}` first.")
        simulated_annotator(load_truth(simulated, context.workspace))(context, rows[-1])
