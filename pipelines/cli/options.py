"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

WorkspaceArgument = Annotated[Path, typer.Argument(metavar="WORKSPACE", help="Folder of the workspace.")]
PortOption = Annotated[
    int | None,
    typer.Option("--port", min=1, max=65535, help="Port of Label Studio; default: the workspace's."),
]
HERE = Path()
