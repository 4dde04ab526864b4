"""Makes the labelling server and the detector of a workspace from its settings; stubs in a dry run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from annotate.studio.protocol import Connection, Studio
from dsmoe_core.errors import SettingsError
from dsmoe_core.progress import StatusCallback
from pipelines.detectors.registry import detector_backend
from pipelines.progress import ProgressReporter
from pipelines.rounds.context import LoopContext
from pipelines.settings.environment import Environment
from pipelines.workspace.workspace import Workspace

if TYPE_CHECKING:
    from annotate.studio.external_server import ExternalServer
    from annotate.studio.server import LabelStudioServer


def labelling_server(
    workspace: Workspace, environment: Environment, port: int | None = None
) -> LabelStudioServer | ExternalServer | None:
    """The workspace's Label Studio, running or not: embedded, or an external one at an address.

    Args:
        workspace: its settings select the server.
        environment: address and token override the settings.
        port: of the embedded server; by default the settings', or the next free one if that is taken.

    Returns:
        None where the settings select the stub.

    Raises:
        SettingsError: an address is set without a token.
    """
    from annotate.studio.external_server import ExternalServer
    from annotate.studio.server import LabelStudioServer

    settings = workspace.settings.studio
    if settings.kind == "stub":
        return None
    url = environment.studio_url or settings.url
    if url is None:
        # The images are in a sub-folder, as Label Studio serves no files of the document root itself.
        return LabelStudioServer(
            workspace.path / "studio",
            workspace.path,
            environment.environments,
            port or settings.port,
            fixed_port=port is not None,
        )
    if environment.studio_token is None:
        raise SettingsError(
            f"no token is set for Label Studio at {url}",
            "Set DSMOE_STUDIO_TOKEN to the token on its page Account & Settings.",
        )
    root = settings.document_root or workspace.path
    return ExternalServer(url, environment.studio_token.get_secret_value(), root)


def start_studio(
    workspace: Workspace, environment: Environment, on_status: StatusCallback, port: int | None = None
) -> tuple[Studio, Connection | None]:
    """A client of the workspace's labelling server, which is started if it does not run.

    Args:
        workspace: its settings select the server.
        environment: address and token override the settings.
        on_status: called with the progress of the start.
        port: see ``labelling_server``.

    Returns:
        The client, and how to connect and sign in; None instead of the latter for the stub.

    Raises:
        StudioError: the server does not start, its port is taken, or an external one rejects the token.
        SettingsError: see ``labelling_server``.
        PrerequisiteError: its environment cannot be built, or the disk is full.
    """
    server = labelling_server(workspace, environment, port)
    if server is None:
        from annotate.studio.fake import FakeStudio

        return FakeStudio(workspace.path / "studio" / "stub.json"), None
    from annotate.studio.client import LabelStudio

    connection = server.start(on_status)
    return LabelStudio(connection), connection


def loop_context(
    workspace: Workspace,
    environment: Environment,
    progress: ProgressReporter,
    on_status: StatusCallback,
    port: int | None = None,
) -> tuple[LoopContext, Connection | None]:
    """The workspace with its labelling server started and its detector; errors as of ``start_studio``.

    Returns:
        The context, and how to connect to Label Studio; None for the stub.
    """
    studio, connection = start_studio(workspace, environment, on_status, port)
    return LoopContext(workspace, studio, detector_backend(workspace, environment), progress), connection
