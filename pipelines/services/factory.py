"""Brings up who works on a workspace, as its settings say: Label Studio and the detector, or stand-ins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from annotate.studio.protocol import Connection, Studio
from dsmoe_core.config import ModelConfig
from dsmoe_core.errors import SettingsError
from pipelines.detectors.backend import Detection, DSMoEDetection
from pipelines.rounds.context import Crew, Reporter
from pipelines.settings import DetectorSettings, Environment
from pipelines.workspace.workspace import Workspace

if TYPE_CHECKING:
    from annotate.studio.external_server import ExistingServer
    from annotate.studio.server import LabelStudioServer
    from dsmoe_core.data.letterbox_cache import PictureCache

Say = Callable[[str], None]


def server(
    workspace: Workspace, environment: Environment, port: int | None = None
) -> LabelStudioServer | ExistingServer | None:
    """The workspace's Label Studio, running or not: its own, or the one that the settings name.

    Returns:
        None where the settings have the stand-in.

    Raises:
        SettingsError: there is an address without a token.
    """
    from annotate.studio.external_server import ExistingServer
    from annotate.studio.server import LabelStudioServer

    settings = workspace.settings.studio
    if settings.kind == "stand-in":
        return None
    url = environment.studio_url or settings.url
    # Pictures lie in pictures/, for Label Studio shows strict sub-folders of its document root only.
    if url is None:
        port = port or settings.port
        return LabelStudioServer(workspace.path / "studio", workspace.path, environment.environments, port)
    if environment.studio_token is None:
        raise SettingsError(
            f"there is no token for {url}",
            "Set DSMOE_STUDIO_TOKEN to the one on its page Account & Settings.",
        )
    root = settings.document_root or workspace.path
    return ExistingServer(url, environment.studio_token.get_secret_value(), root)


def studio(
    workspace: Workspace, environment: Environment, say: Say, port: int | None = None
) -> tuple[Studio, Connection | None]:
    """A labelling server that answers; started if need be.

    Raises:
        StudioError: it does not start, the port is in use, or a server of others does not take us.
        SettingsError: see ``server``.
        PrerequisiteError: its environment cannot be built, or the disk is full.
    """
    own = server(workspace, environment, port)
    if own is None:
        from annotate.studio.fake import FakeStudio

        return FakeStudio(workspace.path / "studio" / "stand-in.json"), None
    from annotate.studio.client import LabelStudio

    connection = own.up(say)
    return LabelStudio(connection), connection


def detection(workspace: Workspace, environment: Environment) -> Detection:
    """The detector of the settings; torch is not imported before it is used."""
    settings = workspace.settings.detector
    if settings.kind == "stand-in":
        from pipelines.detectors.stub_detector import StandInDetection

        return StandInDetection()
    return network(workspace, environment)


def network(workspace: Workspace | None, environment: Environment) -> DSMoEDetection:
    """Runs the network of any folder, with the text encoder of the workspace, where one is in use."""
    if workspace is None or workspace.settings.detector.kind == "stand-in":
        return DSMoEDetection(ModelConfig(), platformdirs.user_cache_path("dsmoe") / "texts")
    settings, key = workspace.settings.detector, environment.embeddings_api_key
    return DSMoEDetection(
        settings.model,
        workspace.path / "cache" / "texts",
        settings.text_encoder,
        api_key=key.get_secret_value() if key else None,
        encoder_from=_first_weights(settings, environment),
        pictures=_picture_cache(workspace),
    )


def _picture_cache(workspace: Workspace) -> PictureCache | None:
    from dsmoe_core.data.letterbox_cache import PictureCache

    most = workspace.settings.detector.picture_cache_gb
    return PictureCache(workspace.path / "cache" / "squares", int(most * 1e9)) if most else None


def _first_weights(settings: DetectorSettings, environment: Environment) -> Path | None:
    """The file of the image encoder's first weights; whether it is there matters to a first training only."""
    if settings.start == "scratch":
        return None
    if settings.start == "mobile-sam":
        from dsmoe_core.mobile_sam.weights import FILE

        return environment.weights / FILE
    from dsmoe_core.warm_start.checkpoint import shipped

    return Path(settings.warm_start).expanduser() if settings.warm_start else shipped(settings.model.size)


def crew(
    workspace: Workspace, environment: Environment, reporter: Reporter, say: Say, port: int | None = None
) -> tuple[Crew, Connection | None]:
    """Everybody who works on a workspace, ready; see ``studio`` for what can go wrong."""
    working, connection = studio(workspace, environment, say, port)
    return Crew(workspace, working, detection(workspace, environment), reporter), connection
