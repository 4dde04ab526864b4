"""Brings up who works on a workspace, as its settings say: Label Studio and the detector, or stubs."""

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
    """The workspace's Label Studio, running or not: its own, or the one that the settings name.

    Returns:
        None where the settings have the stub.

    Raises:
        SettingsError: there is an address without a token.
    """
    from annotate.studio.external_server import ExternalServer
    from annotate.studio.server import LabelStudioServer

    settings = workspace.settings.studio
    if settings.kind == "stub":
        return None
    url = environment.studio_url or settings.url
    # Images lie in images/, for Label Studio shows strict sub-folders of its document root only.
    if url is None:
        port = port or settings.port
        return LabelStudioServer(workspace.path / "studio", workspace.path, environment.environments, port)
    if environment.studio_token is None:
        raise SettingsError(
            f"there is no token for {url}",
            "Set DSMOE_STUDIO_TOKEN to the one on its page Account & Settings.",
        )
    root = settings.document_root or workspace.path
    return ExternalServer(url, environment.studio_token.get_secret_value(), root)


def start_studio(
    workspace: Workspace, environment: Environment, on_status: StatusCallback, port: int | None = None
) -> tuple[Studio, Connection | None]:
    """A labelling server that answers; started if need be.

    Raises:
        StudioError: it does not start, the port is in use, or a server of others does not take us.
        SettingsError: see ``labelling_server``.
        PrerequisiteError: its environment cannot be built, or the disk is full.
    """
    own = labelling_server(workspace, environment, port)
    if own is None:
        from annotate.studio.fake import FakeStudio

        return FakeStudio(workspace.path / "studio" / "stub.json"), None
    from annotate.studio.client import LabelStudio

    connection = own.start(on_status)
    return LabelStudio(connection), connection


def detector_backend(workspace: Workspace, environment: Environment) -> DetectorBackend:
    """The detector of the settings; torch is not imported before it is used."""
    settings = workspace.settings.detector
    if settings.kind == "stub":
        from pipelines.detectors.stub_detector import StubDetector

        return StubDetector()
    return dsmoe_backend(workspace, environment)


def dsmoe_backend(workspace: Workspace | None, environment: Environment) -> DSMoEBackend:
    """Runs the network of any folder, with the text encoder of the workspace, where one is in use."""
    if workspace is None or workspace.settings.detector.kind == "stub":
        return DSMoEBackend(ModelConfig(), platformdirs.user_cache_path("dsmoe") / "texts")
    settings, key = workspace.settings.detector, environment.embeddings_api_key
    return DSMoEBackend(
        settings.model,
        workspace.path / "cache" / "texts",
        settings.text_encoder,
        api_key=key.get_secret_value() if key else None,
        encoder_from=_first_weights(settings, environment),
        images=_image_cache(workspace),
    )


def _image_cache(workspace: Workspace) -> CacheConfig | None:
    from dsmoe_core.data.letterbox_cache import CacheConfig

    most = workspace.settings.detector.image_cache_gb
    return CacheConfig(workspace.path / "cache" / "squares", int(most * 1e9)) if most else None


def _first_weights(settings: DetectorSettings, environment: Environment) -> Path | None:
    """The file of the image encoder's first weights; whether it is there matters to a first training only."""
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
    """Everybody who works on a workspace, ready; see ``start_studio`` for what can go wrong."""
    working, connection = start_studio(workspace, environment, on_status, port)
    return LoopContext(workspace, working, detector_backend(workspace, environment), progress), connection
