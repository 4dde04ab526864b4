"""Runs the back end of a workspace until it is told to end."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import uvicorn

from pipelines.services import factory
from pipelines.services.ml_backend.app import make_app
from pipelines.services.ml_backend.model import ChampionModel
from pipelines.services.ml_backend.process import MLBackendProcess
from pipelines.services.ml_backend.service import PredictionService, ServiceLimits
from pipelines.settings import Environment
from pipelines.workspace.workspace import Workspace

if TYPE_CHECKING:
    from dsmoe_core.mobile_sam.prompt_segmenter import PromptSegmenter


def run(workspace: Workspace, environment: Environment, host: str, port: int) -> None:
    """Serve; returns when the process is asked to end.

    Raises:
        WorkspaceError: the workspace has a back end already.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("pipelines.services.ml_backend").setLevel(logging.INFO)
    ml_backend = MLBackendProcess(workspace.path, port)
    with ml_backend.held():
        app = make_app(service(workspace, environment), ml_backend.credentials(), workspace.settings.round)
        uvicorn.run(app, host=host, port=port, log_config=None, access_log=False, timeout_graceful_shutdown=5)


def service(workspace: Workspace, environment: Environment) -> PredictionService:
    """Everything behind the web face, as the workspace's settings say."""
    return PredictionService(
        ChampionModel(workspace, factory.detector_backend(workspace, environment)),
        workspace.path / "images",
        ServiceLimits(max_pixels=workspace.settings.max_pixels),
        _masks(workspace, environment),
    )


def _masks(workspace: Workspace, environment: Environment) -> PromptSegmenter | None:
    """MobileSAM, where `dsmoe weights mobile-sam` put its weights; a dry run does without."""
    if workspace.settings.detector.kind == "stub":
        return None
    from dsmoe_core.mobile_sam.prompt_segmenter import PromptSegmenter
    from dsmoe_core.mobile_sam.weights import FILE

    path = environment.weights / FILE
    return PromptSegmenter.load(path) if path.is_file() else None
