"""Concurrent requests: full queue, timeouts, promotion meanwhile, and the prediction cache."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx

from dsmoe_core.schema import ImageRecord
from pipelines.services.ml_backend.service import ServiceLimits
from pipelines.workspace.workspace import Workspace
from tests.pipelines.services.ml_backend.stubs import (
    BlockingDetector,
    MakeJson,
    Promote,
    RunScenario,
    click,
    stub_prediction,
)


def test_full_queue_is_503_with_retry_after(
    run_scenario: RunScenario, promote: Promote, request_body: MakeJson, task: MakeJson, workspace: Workspace
) -> None:
    promote("m1")
    images = workspace.images()
    detector = BlockingDetector()

    async def scenario(client: httpx.AsyncClient) -> None:
        detector.unblocked.clear()

        def post(image: ImageRecord) -> asyncio.Task[httpx.Response]:
            return asyncio.create_task(client.post("/predict", json=request_body(task(image))))

        requests = [post(images[0])]
        while len(detector.batch_sizes) < 2:  # it is being predicted; the first batch was the test at loading
            await asyncio.sleep(0.005)
        requests += [post(image) for image in images[1:3]]
        while (await client.get("/health")).json()["waiting"] < 2:
            await asyncio.sleep(0.005)
        refused = await client.post("/predict", json=request_body(task(images[3])))
        assert refused.status_code == 503
        assert refused.headers["Retry-After"] == "1"
        detector.unblocked.set()
        assert [answer.status_code for answer in await asyncio.gather(*requests)] == [200] * 3

    run_scenario(scenario, detector=detector, limits=ServiceLimits(max_waiting=2, batch=1, refresh_s=0.01))


def test_hanging_model_is_504_after_the_timeout(
    run_scenario: RunScenario, promote: Promote, request_body: MakeJson, task: MakeJson, workspace: Workspace
) -> None:
    promote("m1")
    first, second = workspace.images()[:2]
    detector = BlockingDetector()

    async def scenario(client: httpx.AsyncClient) -> None:
        cached = (await client.post("/predict", json=request_body(task(first)))).json()["results"]
        detector.unblocked.clear()
        late = await client.post("/predict", json=request_body(task(second)))
        assert late.status_code == 504
        assert (await client.get("/health")).json()["waiting"] == 0
        # Of two tasks the cached one is answered; Label Studio requests the other again later.
        part = await client.post("/predict", json=request_body(task(first), task(second)))
        assert part.json() == {"results": [*cached, []]}
        detector.unblocked.set()
        assert (await client.post("/predict", json=request_body(task(second)))).status_code == 200

    run_scenario(scenario, detector=detector, limits=ServiceLimits(timeout_s=0.2, refresh_s=0.01))


def test_promotion_replaces_the_model_for_later_requests_only(
    run_scenario: RunScenario, promote: Promote, request_body: MakeJson, task: MakeJson, workspace: Workspace
) -> None:
    promote("m1")
    images = workspace.images()
    detector = BlockingDetector()

    async def scenario(client: httpx.AsyncClient) -> None:
        detector.unblocked.clear()
        running = asyncio.create_task(client.post("/predict", json=request_body(task(images[0]))))
        while len(detector.batch_sizes) < 2:  # the first batch was the test at loading
            await asyncio.sleep(0.005)
        promote("m2")
        while len(detector.batch_sizes) < 3:  # the new model is being tested, the old one still serves
            await asyncio.sleep(0.005)
        assert (await client.post("/setup", json={})).json()["model_version"] == workspace.prediction_version(
            "m1"
        )
        detector.unblocked.set()
        (old,) = (await running).json()["results"]
        assert old["model_version"] == workspace.prediction_version("m1")
        while (await client.post("/setup", json={})).json()["model_version"] != workspace.prediction_version(
            "m2"
        ):
            await asyncio.sleep(0.005)
        (new,) = (await client.post("/predict", json=request_body(task(images[0])))).json()["results"]
        assert new["model_version"] == workspace.prediction_version("m2")

    run_scenario(scenario, detector=detector)


def test_image_is_predicted_once_for_many_requests(
    run_scenario: RunScenario, promote: Promote, request_body: MakeJson, task: MakeJson, workspace: Workspace
) -> None:
    promote("m1")
    image = workspace.images()[0]
    box = stub_prediction(workspace, "m1", image).detections[0].box
    centre = (50 * (box.x1 + box.x2) / image.width, 50 * (box.y1 + box.y2) / image.height)
    detector = BlockingDetector()

    async def scenario(client: httpx.AsyncClient) -> None:
        body = request_body(task(image))
        answers = await asyncio.gather(*(client.post("/predict", json=body) for _ in range(5)))
        assert {answer.status_code for answer in answers} == {200}
        await client.post("/predict", json=request_body(task(image), result=[click(*centre, "rust")]))
        assert detector.batch_sizes == [1, 1]  # once at loading, once for all of these
        replace_file(image.path, workspace.images()[1].path.read_bytes())
        await client.post("/predict", json=body)
        assert detector.batch_sizes == [1, 1, 1]

    run_scenario(scenario, detector=detector)


def test_cache_holds_at_most_the_allowed_number_of_images(
    run_scenario: RunScenario, promote: Promote, request_body: MakeJson, task: MakeJson, workspace: Workspace
) -> None:
    promote("m1")
    first, second = workspace.images()[:2]
    detector = BlockingDetector()

    async def scenario(client: httpx.AsyncClient) -> None:
        for image in (first, first, second, second, first):
            await client.post("/predict", json=request_body(task(image)))
        assert detector.batch_sizes == [1, 1, 1, 1]  # the first at loading

    run_scenario(scenario, detector=detector, limits=ServiceLimits(cached_images=1, refresh_s=0.01))


def test_damaged_image_fails_alone(
    run_scenario: RunScenario, promote: Promote, request_body: MakeJson, task: MakeJson, workspace: Workspace
) -> None:
    promote("m1")
    *good, damaged = workspace.images()[1:5]
    replace_file(damaged.path, damaged.path.read_bytes()[:200])  # the header is intact

    async def scenario(client: httpx.AsyncClient) -> None:
        body = request_body(task(damaged), *map(task, good))
        results = (await client.post("/predict", json=body)).json()["results"]
        assert results[0] == []
        assert all(result["model_version"] for result in results[1:])

    run_scenario(scenario)


def replace_file(path: Path, content: bytes) -> None:
    """Replace the file; a hard link to the old one keeps its content."""
    path.unlink()
    path.write_bytes(content)
