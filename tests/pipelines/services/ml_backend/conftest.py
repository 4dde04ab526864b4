"""A workspace of coloured blocks with a champion, and the ML backend's application in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from annotate.studio.label_config import label_config
from dsmoe_core.config import TrainingConfig
from dsmoe_core.progress import StatusCallback
from dsmoe_core.schema import ImageRecord
from pipelines.detectors.backend import DetectorBackend
from pipelines.detectors.pre_annotations import shown_detections
from pipelines.detectors.stub_detector import StubDetector
from pipelines.rounds.simulated_annotator import load_truth
from pipelines.services.ml_backend.app import make_app
from pipelines.services.ml_backend.credentials import Credentials
from pipelines.services.ml_backend.model import ChampionModel
from pipelines.services.ml_backend.service import PredictionService, ServiceLimits
from pipelines.workspace.registry import new_card
from pipelines.workspace.workspace import Workspace

CREDENTIALS = Credentials("label-studio", "a secret")
Json = dict[str, Any]
Scenario = Callable[[httpx.AsyncClient], Awaitable[None]]
RunScenario = Callable[..., PredictionService]


@pytest.fixture
def promote(workspace: Workspace, blocks: Path) -> StatusCallback:
    """Train a stub on the blocks, register it under this name and promote it."""

    def work(model: str) -> None:
        StubDetector().fit(
            images=list(load_truth(blocks / "train.json", workspace).values()),
            vocabulary=workspace.class_book().vocabulary(),
            training=TrainingConfig(),
            out=workspace.registry.folder(model),
            start_from=None,
        )
        card = new_card(model, number=0, parent=None, dataset_version="d", class_book="b", training={})
        workspace.registry.register(card)
        workspace.registry.promote(model, "for a test")

    return work


@pytest.fixture
def run_scenario(workspace: Workspace) -> RunScenario:
    """Run a scenario with an HTTP client of the application, once the champion is loaded."""

    def run(
        scenario: Scenario,
        *,
        detector: DetectorBackend | None = None,
        limits: ServiceLimits | None = None,
        ready: bool = True,
        masks: Any = None,
    ) -> PredictionService:
        champion = ChampionModel(workspace, detector or StubDetector())
        limits = limits or ServiceLimits(refresh_s=0.01)
        service = PredictionService(champion, workspace.path / "images", limits, masks)
        app = make_app(service, CREDENTIALS, partial(shown_detections, workspace))

        async def main() -> None:
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with app.router.lifespan_context(app), asyncio.timeout(60):
                while ready and service.version is None:
                    await asyncio.sleep(0.005)
                auth = (CREDENTIALS.username, CREDENTIALS.password)
                async with httpx.AsyncClient(
                    transport=transport, base_url="http://ml-backend", auth=auth
                ) as client:
                    await scenario(client)

        asyncio.run(main())
        return service

    return run


@pytest.fixture
def task(workspace: Workspace) -> Callable[[ImageRecord], Json]:
    """A task as Label Studio sends it."""

    def make(image: ImageRecord) -> Json:
        address = f"/data/local-files/?d={image.path.relative_to(workspace.path).as_posix()}"
        return {"id": 7, "project": 1, "data": {"image": address, "key": image.key, "name": image.name}}

    return make


@pytest.fixture
def request_body(workspace: Workspace) -> Callable[..., Json]:
    """The body of POST /predict as ml/api_connector.py makes it."""

    def make(*tasks: Json, result: list[Json] | None = None) -> Json:
        return {
            "tasks": list(tasks),
            "project": "1.1700000000",
            "label_config": label_config(workspace.class_book().vocabulary()),
            "params": {
                "login": None,
                "password": None,
                "context": None if result is None else {"result": result},
            },
        }

    return make
