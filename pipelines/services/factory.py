"""Makes the labelling server and the detector of a workspace from its settings; stubs in a dry run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from annotate.studio.protocol import Connection, Studio
from dsmoe_core.config import ModelConfig
from dsmoe_core.errors import SettingsError
from dsmoe_core.progress import StatusCallback
from pipelines.detectors.backend import DetectorBackend, DSMoEBackend
from pipelines.progress import ProgressReporter
from pipelines.rounds.context import LoopContext
from pipelines.settings import DetectorSettings, Environment
from pipelines.workspace.workspace import Workspace

if TYPE_CHECKING:
    from annotate.studio.external_server import ExternalServer
    from annotate.studio.server import LabelStudioServer
    from dsmoe_core.data.letterbox_cache import CacheConfig


def labelling_server(
    workspace: Workspace, environment: Environment, port: int | None = None
) -> LabelStudioServer | ExternalServer | None:
    """The workspace's Label Studio, running or not: embedded, or an external one at an address.

    Args:
        workspace: its settings select the server.
        environment: address and token override the settings.
        port: of the embedded server; by default the settings'.

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
        port = port or settings.port
        return LabelStudioServer(workspace.path / "studio", workspace.path, environment.environments, port)
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
        port: of the embedded server; by default the settings'.

    Returns:
        The client, and how to connect and sign in; None instead of the latter for the stub.

    Raises:
        StudioError: the server does not start, its port is in use, or an external one rejects the token.
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


def detector_backend(workspace: Workspace, environment: Environment) -> DetectorBackend:
    """The detector of the settings; imports torch on first use only."""
    settings = workspace.settings.detector
    if settings.kind == "stub":
        from pipelines.detectors.stub_detector import StubDetector

        return StubDetector()
    return dsmoe_backend(workspace, environment)


def dsmoe_backend(workspace: Workspace | None, environment: Environment) -> DSMoEBackend:
    """A DS-MoE detector for any model folder.

    Args:
        workspace: its text encoder and caches are used; the packaged encoder and the user's cache for None
            and for a dry run.
        environment: keys, and the folder of pretrained weights.
    """
    if workspace is None or workspace.settings.detector.kind == "stub":
        return DSMoEBackend(ModelConfig(), platformdirs.user_cache_path("dsmoe") / "texts")
    settings, key = workspace.settings.detector, environment.embeddings_api_key
    return DSMoEBackend(
        settings.model,
        workspace.path / "cache" / "texts",
        settings.text_encoder,
        api_key=key.get_secret_value() if key else None,
        encoder_from=_initial_weights(settings, environment),
        images=_image_cache(workspace),
    )


def _image_cache(workspace: Workspace) -> CacheConfig | None:
    from dsmoe_core.data.letterbox_cache import CacheConfig

    size_gb = workspace.settings.detector.image_cache_gb
    return CacheConfig(workspace.path / "cache" / "squares", int(size_gb * 1e9)) if size_gb else None


def _initial_weights(settings: DetectorSettings, environment: Environment) -> Path | None:
    """File of the image encoder's initial weights; only the first training of a workspace reads it."""
    if settings.start == "scratch":
        return None
    if settings.start == "mobile-sam":
        from dsmoe_core.mobile_sam.weights import FILE

        return environment.weights / FILE
    from dsmoe_core.warm_start.checkpoint import shipped_path

    return (
        Path(settings.warm_start).expanduser() if settings.warm_start else shipped_path(settings.model.size)
    )


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
