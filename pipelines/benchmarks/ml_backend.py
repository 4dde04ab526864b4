"""Response times of the ML backend for one annotator and for many, with a real Label Studio.

The network has random weights: its time does not depend on them. Its detections are useless, so a smart click
may return a box found by contrast, or none; the network runs in either case.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import torch

from annotate.studio.api import Api
from annotate.studio.client import LabelStudio
from annotate.studio.controls import CLICK, OBJECT
from annotate.studio.label_config import label_config
from annotate.studio.ml_backend_connection import TITLE
from annotate.studio.protocol import Connection, OpenTask, Task
from annotate.studio.server import LabelStudioServer
from dsmoe_core.build import build_full_network
from dsmoe_core.checkpoint import save_model
from dsmoe_core.config import ModelConfig
from dsmoe_core.data.synthetic.dataset import write_synthetic_set
from dsmoe_core.data.synthetic.pcb_defects import CLASSES
from dsmoe_core.errors import StudioError
from dsmoe_core.progress import StatusCallback
from dsmoe_core.schema import Arm
from dsmoe_core.text_encoders.sentence import SentenceEncoder
from pipelines.services.ml_backend import lifecycle
from pipelines.settings.detector import DetectorSettings
from pipelines.settings.environment import Environment
from pipelines.settings.studio import StudioSettings
from pipelines.settings.workspace import WorkspaceSettings
from pipelines.workspace.ingest import Source, make_workspace
from pipelines.workspace.registry import new_card
from pipelines.workspace.workspace import Workspace

MODEL = "fresh"
DEFAULT_PORT = 8090
SETTLED_S = 10.0
"""Time after which the memory of the ML backend must not grow any more."""


@contextmanager
def benchmark_workspace(
    folder: Path,
    config: ModelConfig,
    environment: Environment,
    *,
    images: int,
    seed: int,
    port: int | None,
    on_status: StatusCallback,
) -> Iterator[tuple[Workspace, Connection]]:
    """A workspace of synthetic boards whose champion has random weights, with a running Label Studio.

    Label Studio and the ML backend are stopped at the end.

    Args:
        port: of Label Studio; None: the first free one from DEFAULT_PORT on. The ML backend's port is a
            free one above it.
    """
    on_status("generating synthetic images")
    write_synthetic_set(folder / "data", "pcb", train=images, val=1, seed=seed, px=config.image_px)
    model = {**config.model_dump(), "text_width": SentenceEncoder().width}
    settings = WorkspaceSettings(
        title="ML backend benchmark",
        seed=seed,
        studio=StudioSettings(port=port or DEFAULT_PORT, ml_backend_port=(port or DEFAULT_PORT) + 1),
        detector=DetectorSettings(model=ModelConfig.model_validate(model)),
    )
    source = Source(folder / "data" / "images", classes=list(CLASSES))
    workspace, _ = make_workspace(folder / "workspace", source, settings)
    with workspace:
        workspace.complete()
        _promote_untrained(workspace, seed)
        server = LabelStudioServer(
            workspace.path / "studio",
            workspace.path,
            environment.environments,
            port or DEFAULT_PORT,
            fixed_port=port is not None,
        )
        try:
            yield workspace, server.start(on_status)
        finally:
            lifecycle.ml_backend(workspace).down()
            server.stop()


def _promote_untrained(workspace: Workspace, seed: int) -> None:
    torch.manual_seed(seed)
    config, vocabulary = workspace.settings.detector.model, workspace.class_book().vocabulary()
    card = {"text_encoder": SentenceEncoder().name}
    save_model(workspace.registry.folder(MODEL), build_full_network(config), config, vocabulary, card)
    workspace.registry.register(
        new_card(
            MODEL,
            number=0,
            parent=None,
            dataset_version="none",
            class_book=vocabulary.version,
            training={},
        )
    )
    workspace.registry.promote(MODEL, "for a benchmark")


def measure_ml_backend(
    workspace: Workspace,
    connection: Connection,
    *,
    clicks: int,
    annotators: int,
    seconds: float,
    on_status: StatusCallback = lambda _: None,
) -> dict[str, Any]:
    """Time smart clicks through Label Studio, then requests of many concurrent annotators to the ML backend.

    Args:
        clicks: images to click on, twice each: the first click waits for the network, the second does not.
        annotators: concurrent clients. Each repeats, without a pause, the requests that Label Studio sends
            for an annotator who opens a task and clicks once: /health, /setup, /predict, /predict. Each
            starts at another image. There should be more images than the ML backend caches.
        seconds: duration of the concurrent requests.

    Returns:
        The keys of studio.json that concern the ML backend; memory in 1e6 bytes.

    Raises:
        StudioError: Label Studio or the ML backend fails.
    """
    studio = LabelStudio(connection)
    lifecycle.start_ml_backend(workspace, studio, connection, on_status)
    vocabulary = workspace.class_book().vocabulary()
    project = studio.ensure_project(workspace.settings.title, vocabulary, owner=workspace.unique_id())
    images = workspace.images()
    studio.import_tasks(
        project, [Task(image, 0, Arm.SEED, rank, None) for rank, image in enumerate(images[:clicks])]
    )
    on_status(f"clicking on {clicks} images")
    first_ms, second_ms = _time_clicks(connection, project, studio.open_tasks(project)[:clicks])
    on_status(f"{annotators} annotators for {seconds:.0f} s")
    config = workspace.settings.detector.model
    return {
        "click_ms_p95": round(p95(first_ms), 1),
        "click_ms_median": round(statistics.median(first_ms), 1),
        "click_again_ms_p95": round(p95(second_ms), 1),
        "model": {"size": config.size, "image_px": config.image_px},
        "back_end": _load_test(workspace, annotators, seconds),
    }


def _time_clicks(
    connection: Connection, project: int, tasks: Sequence[OpenTask]
) -> tuple[list[float], list[float]]:
    """Milliseconds of the first and of the second click on each image, through Label Studio."""
    with Api(connection).client("list the ML backends") as sdk:
        (backend,) = [row.id for row in sdk.ml.list(project=project) if row.title == TITLE]
    first_ms: list[float] = []
    second_ms: list[float] = []
    headers = {"Authorization": f"Token {connection.token}"}
    with httpx.Client(base_url=connection.url, headers=headers, timeout=60, trust_env=False) as client:
        for task in tasks:
            for times, percent in ((first_ms, 50.0), (second_ms, 25.0)):
                body = {"task": task.task_id, "context": {"result": [_click(percent)]}}
                started = time.perf_counter()
                response = client.post(f"/api/ml/{backend}/interactive-annotating", json=body)
                times.append(1000 * (time.perf_counter() - started))
                if not response.is_success or "data" not in response.json():
                    raise StudioError(
                        f"a smart click on task {task.task_id} got no result: {response.text[:300]}",
                        "See the log of the ML backend.",
                    )
    return first_ms, second_ms


def _load_test(workspace: Workspace, annotators: int, seconds: float) -> dict[str, Any]:
    """Response times under concurrent requests, and the memory of the ML backend."""
    backend = lifecycle.ml_backend(workspace)
    status, credentials = backend.status(), backend.credentials()
    if status.pid is None:
        raise StudioError("the ML backend does not run", f"See {status.log}.")
    end = time.perf_counter() + seconds
    bodies = _request_bodies(workspace)
    auth = (credentials.username, credentials.password)
    client = httpx.Client(base_url=status.url, auth=auth, timeout=60, trust_env=False)

    def annotator(number: int) -> tuple[list[float], int]:
        times: list[float] = []
        errors, place = 0, number * len(bodies) // annotators
        while time.perf_counter() < end:
            for path, body in _task_requests(*bodies[place % len(bodies)]):
                started = time.perf_counter()
                try:
                    response = client.post(path, json=body) if body is not None else client.get(path)
                    errors += not response.is_success
                except httpx.HTTPError:
                    errors += 1
                times.append(1000 * (time.perf_counter() - started))
            place += 1
        return times, errors

    with client, ThreadPoolExecutor(annotators) as pool:
        futures = [pool.submit(annotator, number) for number in range(annotators)]
        time.sleep(min(SETTLED_S, seconds / 2))
        settled_mb = _rss_mb(status.pid)
        sessions = [future.result() for future in futures]
    times = [ms for session, _ in sessions for ms in session]
    return {
        "annotators": annotators,
        "seconds": seconds,
        "requests": len(times),
        "errors": sum(errors for _, errors in sessions),
        "p95_ms": round(p95(times), 1),
        "pictures": len(bodies),
        "rss_mb_settled": round(settled_mb, 1),
        "rss_mb_end": round(_rss_mb(status.pid), 1),
    }


def _task_requests(pre_annotation: Any, click: Any) -> Iterator[tuple[str, Any]]:
    """Path and body of the requests for one task; a GET request has no body."""
    yield "/health", None
    yield "/setup", {"project": "1.1"}
    yield "/predict", pre_annotation
    yield "/predict", click


def _request_bodies(workspace: Workspace) -> list[tuple[Any, Any]]:
    """For every image, the bodies of the request for pre-annotations and of a smart click."""
    config = label_config(workspace.class_book().vocabulary())
    bodies = []
    for image in workspace.images():
        address = f"/data/local-files/?d=images/{image.path.name}"
        tasks = [{"id": 1, "project": 1, "data": {OBJECT: address, "key": image.key}}]
        body = {"tasks": tasks, "project": "1.1", "label_config": config}
        click = {"context": {"result": [_click(50.0)]}}
        bodies.append(({**body, "params": {"context": None}}, {**body, "params": click}))
    return bodies


def _click(percent: float) -> dict[str, Any]:
    """A click as a Label Studio region at this percentage of the width and of the height."""
    kind = "keypointlabels"
    value = {"x": percent, "y": percent, "width": 0.3, kind: [CLASSES[0]]}
    return {
        "id": "k",
        "type": kind,
        "from_name": CLICK,
        "to_name": OBJECT,
        "value": value,
        "origin": "manual",
    }


def p95(times: Sequence[float]) -> float:
    """The 95th percentile (nearest rank)."""
    return sorted(times)[math.ceil(0.95 * len(times)) - 1]


def _rss_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) * 1024 / 1e6
