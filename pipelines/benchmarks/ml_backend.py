"""How fast the back end answers, alone and to many annotators: a real Label Studio, a real process.

The network has fresh weights: its time does not depend on what they are. What it finds is of no use, so a
click may be answered with a box by contrast, or none; either way the network has looked at the image.
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
from dsmoe_core.text_encoders.sentence import SentenceEncoder
from pipelines.services.ml_backend import lifecycle
from pipelines.settings import DetectorSettings, Environment, StudioSettings, WorkspaceSettings
from pipelines.workspace.ingest import Source, make_workspace
from pipelines.workspace.registry import new_card
from pipelines.workspace.workspace import Workspace

MODEL = "fresh"
SETTLED_S = 10.0
"""From so long after the beginning on, memory must not grow."""


@contextmanager
def benchmark_room(
    folder: Path,
    config: ModelConfig,
    environment: Environment,
    *,
    images: int,
    seed: int,
    ports: tuple[int, int],
    on_status: StatusCallback,
) -> Iterator[tuple[Workspace, Connection]]:
    """A workspace of drawn boards whose champion has fresh weights, and its Label Studio.

    Both servers are stopped in the end.

    Args:
        ports: of Label Studio and of the back end.
    """
    on_status("drawing images")
    write_synthetic_set(folder / "data", "pcb", train=images, val=1, seed=seed, px=config.image_px)
    shape = {**config.model_dump(), "text_width": SentenceEncoder().width}
    settings = WorkspaceSettings(
        title="back end benchmark",
        seed=seed,
        studio=StudioSettings(port=ports[0], ml_backend_port=ports[1]),
        detector=DetectorSettings(model=ModelConfig.model_validate(shape)),
    )
    source = Source(folder / "data" / "images", classes=list(CLASSES))
    workspace, _ = make_workspace(folder / "workspace", source, settings)
    with workspace:
        workspace.complete()
        _promote_fresh(workspace, seed)
        server = LabelStudioServer(
            workspace.path / "studio", workspace.path, environment.environments, ports[0]
        )
        try:
            yield workspace, server.start(on_status)
        finally:
            lifecycle.ml_backend(workspace).down()
            server.stop()


def _promote_fresh(workspace: Workspace, seed: int) -> None:
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
    workspace.registry.promote(MODEL, "to be measured")


def measure_back_end(
    workspace: Workspace,
    connection: Connection,
    *,
    clicks: int,
    annotators: int,
    seconds: float,
    on_status: StatusCallback = lambda _: None,
) -> dict[str, Any]:
    """Click through Label Studio one after the other; then many annotators at the back end without a pause.

    Args:
        clicks: images, each clicked on twice: the first click waits for the network, the second does not.
        annotators: at once. Each does again and again what Label Studio does for one who opens a task and
            clicks once: /health, /setup, /predict, /predict. Everybody starts at another image, and there
            should be more images than the back end remembers.

    Returns:
        The keys of studio.json that concern the back end; memory in 1e6 bytes.

    Raises:
        StudioError: Label Studio or the back end fails.
    """
    studio = LabelStudio(connection)
    lifecycle.start_ml_backend(workspace, studio, connection, on_status)
    words = workspace.class_book().vocabulary()
    project = studio.ensure_project(workspace.settings.title, words, owner=workspace.unique_id())
    images = workspace.images()
    studio.import_tasks(project, [Task(p, 0, "seed", rank, None) for rank, p in enumerate(images[:clicks])])
    on_status(f"clicking on {clicks} images")
    first, again = _click_through(connection, project, studio.open_tasks(project)[:clicks])
    on_status(f"{annotators} annotators for {seconds:.0f} s")
    return {
        "click_ms_p95": round(p95(first), 1),
        "click_ms_median": round(statistics.median(first), 1),
        "click_again_ms_p95": round(p95(again), 1),
        "model": {"size": workspace.settings.detector.model.size, "image_px": _px(workspace)},
        "ml_backend": _load(workspace, annotators, seconds),
    }


def _click_through(
    connection: Connection, project: int, tasks: Sequence[OpenTask]
) -> tuple[list[float], list[float]]:
    """Milliseconds of the first and of the second click on each image, through Label Studio."""
    with Api(connection).client("list the back ends") as sdk:
        (row,) = [row.id for row in sdk.ml.list(project=project) if row.title == TITLE]
    first: list[float] = []
    again: list[float] = []
    sign = {"Authorization": f"Token {connection.token}"}
    with httpx.Client(base_url=connection.url, headers=sign, timeout=60, trust_env=False) as client:
        for task in tasks:
            for times, at in ((first, 50.0), (again, 25.0)):
                body = {"task": task.task_id, "context": {"result": [_click(at)]}}
                began = time.perf_counter()
                answer = client.post(f"/api/ml/{row}/interactive-annotating", json=body)
                times.append(1000 * (time.perf_counter() - began))
                if not answer.is_success or "data" not in answer.json():
                    raise StudioError(
                        f"a smart click on task {task.task_id} got no answer: {answer.text[:300]}",
                        "See the log of the ML backend.",
                    )
    return first, again


def _load(workspace: Workspace, annotators: int, seconds: float) -> dict[str, Any]:
    """Everybody at once at the back end; its memory meanwhile."""
    ml_backend = lifecycle.ml_backend(workspace)
    status, signed = ml_backend.status(), ml_backend.credentials()
    if status.pid is None:
        raise StudioError("the back end is gone", f"See {status.log}.")
    end = time.perf_counter() + seconds
    bodies = _bodies(workspace)
    client = httpx.Client(
        base_url=status.url, auth=(signed.username, signed.password), timeout=60, trust_env=False
    )

    def annotator(number: int) -> tuple[list[float], int]:
        times: list[float] = []
        errors, place = 0, number * len(bodies) // annotators
        while time.perf_counter() < end:
            for path, body in _requests(*bodies[place % len(bodies)]):
                began = time.perf_counter()
                try:
                    answer = client.post(path, json=body) if body is not None else client.get(path)
                    errors += not answer.is_success
                except httpx.HTTPError:
                    errors += 1
                times.append(1000 * (time.perf_counter() - began))
            place += 1
        return times, errors

    with client, ThreadPoolExecutor(annotators) as people:
        working = [people.submit(annotator, number) for number in range(annotators)]
        time.sleep(min(SETTLED_S, seconds / 2))
        settled = _rss_mb(status.pid)
        done = [one.result() for one in working]
    times = [ms for session, _ in done for ms in session]
    return {
        "annotators": annotators,
        "seconds": seconds,
        "requests": len(times),
        "errors": sum(errors for _, errors in done),
        "p95_ms": round(p95(times), 1),
        "pictures": len(bodies),
        "rss_mb_settled": round(settled, 1),
        "rss_mb_end": round(_rss_mb(status.pid), 1),
    }


def _requests(pre_annotation: Any, click: Any) -> Iterator[tuple[str, Any]]:
    yield "/health", None
    yield "/setup", {"project": "1.1"}
    yield "/predict", pre_annotation
    yield "/predict", click


def _bodies(workspace: Workspace) -> list[tuple[Any, Any]]:
    """For every image, what asks for its pre-annotations and what a click on it sends."""
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
    """The time within which 95 of 100 were answered (nearest rank)."""
    return sorted(times)[math.ceil(0.95 * len(times)) - 1]


def _px(workspace: Workspace) -> int:
    return workspace.settings.detector.model.image_px


def _rss_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) * 1024 / 1e6
