"""Runs the ML backend of a workspace in this process until it is terminated."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import uvicorn

from pipelines.detectors.pre_annotations import shown_detections
from pipelines.detectors.registry import detector_backend
from pipelines.services.ml_backend.app import make_app
from pipelines.services.ml_backend.model import ChampionModel
from pipelines.services.ml_backend.process import MLBackendProcess
from pipelines.services.ml_backend.service import PredictionService, ServiceLimits
from pipelines.settings.environment import Environment
from pipelines.workspace.workspace import Workspace

if TYPE_CHECKING:
    from dsmoe_core.mobile_sam.prompt_segmenter import PromptSegmenter


def run(
    workspace: Workspace,
    environment: Environment,
    host: str,
    port: int | None,
    announce: Callable[[str], None],
) -> None:
    """Serve HTTP requests; returns when the process receives SIGTERM or SIGINT.

    Args:
        host: address to listen on.
        port: port to listen on; None: the workspace's, or the next free one if that is taken.
        announce: called with the address.

    Raises:
        WorkspaceError: another ML backend serves the workspace.
        StudioError: the port is taken.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("pipelines.services.ml_backend").setLevel(logging.INFO)
    process = MLBackendProcess(workspace.path, port or workspace.settings.studio.ml_backend_port)
    with process.hold_lock(host, fixed_port=port is not None) as free:
        announce(f"http://{host}:{free}")
        service = prediction_service(workspace, environment)
        app = make_app(service, process.credentials(), partial(shown_detections, workspace))
        uvicorn.run(app, host=host, port=free, log_config=None, access_log=False, timeout_graceful_shutdown=5)


def prediction_service(workspace: Workspace, environment: Environment) -> PredictionService:
    """The service with the detector and the limits of the workspace's settings."""
    return PredictionService(
        ChampionModel(workspace, detector_backend(workspace, environment)),
        workspace.path / "images",
        ServiceLimits(max_pixels=workspace.settings.max_pixels),
        _mobile_sam(workspace, environment),
    )


def _mobile_sam(workspace: Workspace, environment: Environment) -> PromptSegmenter | None:
    """MobileSAM; None where its weights are not installed, and in a dry run."""
    if workspace.settings.detector.kind == "stub":
        return None
    from dsmoe_core.mobile_sam.prompt_segmenter import PromptSegmenter
    from dsmoe_core.mobile_sam.weights import FILE

    path = environment.weights / FILE
    return PromptSegmenter.load(path) if path.is_file() else None
