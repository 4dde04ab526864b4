"""dsmoe services up, down, status; review; ui"""

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

app = typer.Typer(help="The labelling server of a workspace.", no_args_is_help=True)


def _server(workspace: Workspace, port: int | None) -> LabelStudioServer | ExternalServer:
    from dsmoe_core.errors import SettingsError
    from pipelines.services import factory
    from pipelines.settings import Environment

    own = factory.labelling_server(workspace, Environment.read(), port)
    if own is None:
        raise SettingsError(
            f"{workspace.path} is a dry run without a labelling server", "Make a workspace without --dry-run."
        )
    return own


@app.command("up")
def up(workspace: WorkspaceArgument = CURRENT_FOLDER, port: PortOption = None) -> None:
    """Start Label Studio and, once a model was promoted, live pre-annotations; say where they are.

    One that runs already is named by studio.url in dsmoe.yaml or DSMOE_STUDIO_URL, with DSMOE_STUDIO_TOKEN.

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
    """Stop Label Studio and live pre-annotations; a server named by its address is not ours to stop.

    Example: `dsmoe services down boards`
    """
    from annotate.studio.external_server import ExternalServer
    from pipelines.services.ml_backend import lifecycle
    from pipelines.workspace.workspace import Workspace

    with Workspace.open(workspace) as opened:
        found = _server(opened, None)
        if lifecycle.ml_backend(opened).down():
            line("live pre-annotations are stopped")
    if isinstance(found, ExternalServer):
        line(f"Label Studio at {found.url} is not ours; it was not stopped")
        return
    line("Label Studio is stopped" if found.stop() else "Label Studio was not running")


@app.command("status")
def status(workspace: WorkspaceArgument = CURRENT_FOLDER) -> None:
    """Say whether Label Studio and live pre-annotations run, and where.

    Example: `dsmoe services status boards`
    """
    from annotate.studio.external_server import ExternalServer
    from pipelines.services.ml_backend import lifecycle
    from pipelines.workspace.workspace import Workspace

    with Workspace.open(workspace) as opened:
        server = _server(opened, None)
        if isinstance(server, ExternalServer):
            server.start()
            line(f"Label Studio {server.version()} at {server.url} takes our token")
            line(lifecycle.status_message(opened, server.url))
            return
        found = server.status()
        live = lifecycle.status_message(opened, found.url or "http://127.0.0.1")
    state = "up" if found.healthy else "starting or hung" if found.running else "down"
    where = f" at {found.url} (process {found.pid})" if found.running else ""
    line(f"Label Studio is {state}{where}; log: {found.log}")
    line(live)


def review(
    workspace: WorkspaceArgument = CURRENT_FOLDER,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port of FiftyOne.")] = 5151,
) -> None:
    """Open FiftyOne on the workspace: truth, detections, uncertainty, experts; most uncertain first.

    Example: `dsmoe review boards`
    """
    from annotate.review.app import Page, launch
    from pipelines.services.review import dataset_name, review_samples
    from pipelines.settings import Environment
    from pipelines.workspace.workspace import Workspace

    def announce(page: Page) -> None:
        progress.line(f"FiftyOne: {page.address}")
        progress.line(f"most uncertain first: {page.uncertain_view}")

    environment = Environment.read()
    with Workspace.open(workspace) as opened, TerminalReporter() as progress:
        progress.status("bringing images into FiftyOne")
        launch(
            dataset_name(opened, shared=environment.review_uri is not None),
            review_samples(opened),
            folder=opened.path / "review",
            port=port,
            uri=environment.review_uri,
            announce=announce,
            progress=progress.advance,
        )


def ui(
    workspace: WorkspaceArgument = CURRENT_FOLDER,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port of the page.")] = 8501,
) -> None:
    """Open the web page: rounds, experts, images. Ctrl-C ends it.

    Example: `dsmoe ui boards`
    """
    from pipelines.workspace.workspace import Workspace

    Workspace.open(workspace).close()  # whatever is wrong with it is said here, not in the browser
    # By name: the command line is the front door of all rooms, yet nothing here is built on the page.
    importlib.import_module("ui.launch").serve(workspace.resolve(), port)
