"""dsmoe backend"""

from __future__ import annotations

from typing import Annotated

import typer

from dsmoe_core.loopback import LOOPBACK
from pipelines.cli.options import CURRENT_FOLDER, WorkspaceArgument
from pipelines.cli.terminal import console


def backend(
    workspace: WorkspaceArgument = CURRENT_FOLDER,
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65535, help="Default: the workspace's.")
    ] = None,
    host: Annotated[
        str, typer.Option("--host", help="Where to listen; by default on this machine only.")
    ] = LOOPBACK,
) -> None:
    """Answer Label Studio's requests for live pre-annotations and smart tools, until Ctrl-C.

    `dsmoe services up` runs this in the background; by hand it is for looking at its log, or for a machine of
    its own.

    Example: `dsmoe backend boards --port 9091`
    """
    from pipelines.services.ml_backend.run import run
    from pipelines.settings import Environment
    from pipelines.workspace.workspace import Workspace

    with Workspace.open(workspace) as opened:
        listens = port or opened.settings.studio.ml_backend_port
        console.print(f"answering at http://{host}:{listens}; Ctrl-C ends it", highlight=False)
        run(opened, Environment.read(), host, listens)
