"""Command `dsmoe backend`."""

from __future__ import annotations

from typing import Annotated

import typer

from dsmoe_core.loopback import LOOPBACK
from pipelines.cli.options import CURRENT_FOLDER, WorkspaceArgument
from pipelines.cli.terminal import line


def backend(
    workspace: WorkspaceArgument = CURRENT_FOLDER,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            min=1,
            max=65535,
            help="Port to listen on; default: the workspace's, or the next free one.",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; default: this machine only.")
    ] = LOOPBACK,
) -> None:
    """Serve live pre-annotations and smart tools to Label Studio until Ctrl-C.

    `dsmoe services up` runs this command in the background. Run it yourself to see its log, or on a machine
    of its own.

    Example: `dsmoe backend boards --port 9091`
    """
    from pipelines.services.ml_backend.run import run
    from pipelines.settings.environment import Environment
    from pipelines.workspace.workspace import Workspace

    with Workspace.open(workspace) as opened:
        run(
            opened,
            Environment.read(),
            host,
            port,
            lambda address: line(f"serving at {address}; Ctrl-C stops it"),
        )
