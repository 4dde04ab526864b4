"""Commands `dsmoe services up`, `down` and `status`, `dsmoe review` and `dsmoe ui`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.options import CURRENT_FOLDER, PortOption, WorkspaceArgument
from pipelines.cli.terminal import TerminalReporter, line, show_sign_in

if TYPE_CHECKING:
    from annotate.studio.external_server import ExternalServer
    from annotate.studio.server import LabelStudioServer
    from pipelines.workspace.workspace import Workspace

app = typer.Typer(
    help="Label Studio and the ML backend of a workspace: start, stop, status.", no_args_is_help=True
)


def _server(workspace: Workspace, port: int | None) -> LabelStudioServer | ExternalServer:
    """The workspace's Label Studio.

    Raises:
        SettingsError: the workspace was made with --dry-run.
    """
    from dsmoe_core.errors import SettingsError
    from pipelines.services import factory
    from pipelines.settings.environment import Environment

    server = factory.labelling_server(workspace, Environment.read(), port)
    if server is None:
        raise SettingsError(
            f"{workspace.path} is a dry run and has no labelling server",
            "Make a workspace without --dry-run.",
        )
    return server


@app.command("up")
def up(workspace: WorkspaceArgument = CURRENT_FOLDER, port: PortOption = None) -> None:
    """Start Label Studio and, after the first promotion, live pre-annotations; print the URLs.

    To use an external Label Studio, set studio.url in dsmoe.yaml or DSMOE_STUDIO_URL, and DSMOE_STUDIO_TOKEN.

    Example: `dsmoe services up boards --port 8090`
    """
    from annotate.studio.client import LabelStudio
    from pipelines.services.ml_backend import lifecycle
    from pipelines.workspace.workspace import Workspace

    with Workspace.open(workspace) as opened:
        with TerminalReporter() as progress:
            connection = _server(opened, port).start(progress.status)
        show_sign_in(connection, connection.url)
        with TerminalReporter() as progress:
            lifecycle.start_ml_backend(opened, LabelStudio(connection), connection, progress.status)
        line(lifecycle.status_message(opened, connection.url))


@app.command("down")
def down(workspace: WorkspaceArgument = CURRENT_FOLDER) -> None:
    """Stop Label Studio and live pre-annotations; an external Label Studio is not stopped.

    Example: `dsmoe services down boards`
    """
    from annotate.studio.external_server import ExternalServer
    from pipelines.services.ml_backend import lifecycle
    from pipelines.workspace.workspace import Workspace

    with Workspace.open(workspace) as opened:
        server = _server(opened, None)
        if lifecycle.ml_backend(opened).down():
            line("live pre-annotations are stopped")
    if isinstance(server, ExternalServer):
        line(f"Label Studio at {server.url} is external; it was not stopped")
        return
    line("Label Studio is stopped" if server.stop() else "Label Studio was not running")


@app.command("status")
def status(workspace: WorkspaceArgument = CURRENT_FOLDER) -> None:
    """Show whether Label Studio and live pre-annotations run, and their URLs.

    Example: `dsmoe services status boards`
    """
    from annotate.studio.external_server import ExternalServer
    from pipelines.services.ml_backend import lifecycle
    from pipelines.workspace.workspace import Workspace

    with Workspace.open(workspace) as opened:
        server = _server(opened, None)
        if isinstance(server, ExternalServer):
            server.start()
            line(f"Label Studio {server.version()} at {server.url} accepts the token")
            line(lifecycle.status_message(opened, server.url))
            return
        process = server.status()
        ml_backend = lifecycle.status_message(opened, process.url or "http://127.0.0.1")
    state = "up" if process.healthy else "starting or hung" if process.running else "down"
    where = f" at {process.url} (process {process.pid})" if process.running else ""
    line(f"Label Studio is {state}{where}; log: {process.log}")
    line(ml_backend)


def review(
    workspace: WorkspaceArgument = CURRENT_FOLDER,
    port: Annotated[
        int | None,
        typer.Option(
            "--port", min=1, max=65535, help="Port of FiftyOne; default: 5151, or the next free one."
        ),
    ] = None,
) -> None:
    """Open FiftyOne on the workspace: labels, predictions, uncertainty, experts; most uncertain first.

    Example: `dsmoe review boards`
    """
    from annotate.review.app import Page, launch
    from pipelines.services.review import dataset_name, review_samples
    from pipelines.settings.environment import Environment
    from pipelines.workspace.workspace import Workspace

    def announce(page: Page) -> None:
        progress.line(f"FiftyOne: {page.address}")
        progress.line(f"most uncertain first: {page.uncertain_view}")

    environment = Environment.read()
    with Workspace.open(workspace) as opened, TerminalReporter() as progress:
        progress.status("importing images into FiftyOne")
        launch(
            dataset_name(opened, shared=environment.review_uri is not None),
            review_samples(opened),
            folder=opened.path / "review",
            port=port or 5151,
            fixed_port=port is not None,
            uri=environment.review_uri,
            announce=announce,
            progress=progress.advance,
        )


def ui(
    workspace: WorkspaceArgument = CURRENT_FOLDER,
    port: Annotated[
        int | None,
        typer.Option(
            "--port", min=1, max=65535, help="Port of the web page; default: 8501, or the next free one."
        ),
    ] = None,
) -> None:
    """Open the web page with rounds, experts and images; Ctrl-C stops it.

    Example: `dsmoe ui boards`
    """
    from pipelines.workspace.workspace import Workspace

    Workspace.open(workspace).close()  # errors of the workspace are shown here, not in the browser
    # Imported by name, because `pipelines` must not depend on `ui`.
    importlib.import_module("ui.launch").serve(workspace.resolve(), port or 8501, fixed_port=port is not None)
