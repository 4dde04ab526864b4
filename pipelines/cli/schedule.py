"""Commands `dsmoe schedule up`, `down` and `status`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from pipelines.cli.options import CURRENT_FOLDER, WorkspaceArgument
from pipelines.cli.terminal import TerminalReporter, line

app = typer.Typer(
    help="Dagster for a workspace: its steps as assets, runs started by the policy or by a cron schedule.",
    no_args_is_help=True,
)


@app.command("up")
def up(
    workspace: WorkspaceArgument = CURRENT_FOLDER,
    port: Annotated[
        int | None,
        typer.Option(
            "--port", min=1, max=65535, help="Port of Dagster's page; default: 3070, or the next free one."
        ),
    ] = None,
) -> None:
    """Start Dagster's web server and daemon for a workspace, and print the address of its page.

    Example: `dsmoe schedule up boards`
    """
    from pipelines.orchestration.service import ScheduleService
    from pipelines.workspace.workspace import Workspace

    with Workspace.open(workspace) as opened:  # errors of the workspace are shown here, not in Dagster's log
        path, start = opened.path, opened.settings.schedule.start
    with TerminalReporter() as progress:
        url = ScheduleService(path, port).up(progress.status)
    line(f"Dagster: {url} (started by: {start})")


@app.command("down")
def down(workspace: WorkspaceArgument = CURRENT_FOLDER) -> None:
    """Stop Dagster; a run that is active is interrupted and continues in the next one.

    Example: `dsmoe schedule down boards`
    """
    from pipelines.orchestration.service import ScheduleService
    from pipelines.workspace.workspace import Workspace

    with Workspace.open(workspace) as opened:
        stopped = ScheduleService(opened.path).down()
    line("Dagster is stopped" if stopped else "Dagster was not running")


@app.command("status")
def status(
    workspace: WorkspaceArgument = CURRENT_FOLDER,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show whether Dagster runs, and where.

    Example: `dsmoe schedule status boards`
    """
    from pipelines.orchestration.service import ScheduleService
    from pipelines.workspace.workspace import Workspace

    with Workspace.open(workspace) as opened:
        state = ScheduleService(opened.path).status()
    if as_json:
        typer.echo(json.dumps({"pid": state.pid, "url": state.url, "healthy": state.healthy}))
        return
    word = "up" if state.healthy else "starting or hung" if state.pid else "down"
    where = f" at {state.url} (process {state.pid})" if state.pid else ""
    line(f"Dagster is {word}{where}; log: {state.log}")
