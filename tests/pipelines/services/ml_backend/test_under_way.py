"""Requests under way: a full line, a model that hangs, a promotion meanwhile, what is remembered."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx

from dsmoe_core.schema import ImageRecord
from pipelines.services.ml_backend.service import ServiceLimits
from pipelines.workspace.workspace import Workspace
from tests.pipelines.services.ml_backend.asking import Held, Make, Play, Promote, click, found_by


def test_a_full_line_sends_away_at_once_and_says_when_to_come_back(
    play: Play, promote: Promote, request_body: Make, task: Make, workspace: Workspace
) -> None:
    promote("m1")
    images = workspace.images()
    detector = Held()

    async def scene(client: httpx.AsyncClient) -> None:
        detector.go.clear()

        def ask(image: ImageRecord) -> asyncio.Task[httpx.Response]:
            return asyncio.create_task(client.post("/predict", json=request_body(task(image))))

        asked = [ask(images[0])]
        while len(detector.looks) < 2:  # it is being answered; the first look was when the model came in
            await asyncio.sleep(0.005)
        asked += [ask(image) for image in images[1:3]]
        while (await client.get("/health")).json()["waiting"] < 2:
            await asyncio.sleep(0.005)
        refused = await client.post("/predict", json=request_body(task(images[3])))
        assert refused.status_code == 503
        assert refused.headers["Retry-After"] == "1"
        assert "waiting already" in refused.json()["error"]
        detector.go.set()
        assert [answer.status_code for answer in await asyncio.gather(*asked)] == [200] * 3

    play(scene, detector=detector, limits=ServiceLimits(waiting=2, batch=1, look_s=0.01))


def test_a_model_that_hangs_costs_a_request_its_time_limit_and_no_more(
    play: Play, promote: Promote, request_body: Make, task: Make, workspace: Workspace
) -> None:
    promote("m1")
    first, second = workspace.images()[:2]
    detector = Held()

    async def scene(client: httpx.AsyncClient) -> None:
        known = (await client.post("/predict", json=request_body(task(first)))).json()["results"]
        detector.go.clear()
        late = await client.post("/predict", json=request_body(task(second)))
        assert late.status_code == 504
        assert (await client.get("/health")).json()["waiting"] == 0
        # Of several tasks, those that are known come back; the rest is asked for again another time.
        part = await client.post("/predict", json=request_body(task(first), task(second)))
        assert part.json() == {"results": [*known, []]}
        detector.go.set()
        assert (await client.post("/predict", json=request_body(task(second)))).status_code == 200

    play(scene, detector=detector, limits=ServiceLimits(seconds=0.2, look_s=0.01))


def test_a_promotion_changes_who_answers_and_requests_under_way_end_with_the_old_one(
    play: Play, promote: Promote, request_body: Make, task: Make, workspace: Workspace
) -> None:
    promote("m1")
    images = workspace.images()
    detector = Held()

    async def scene(client: httpx.AsyncClient) -> None:
        detector.go.clear()
        under_way = asyncio.create_task(client.post("/predict", json=request_body(task(images[0]))))
        while len(detector.looks) < 2:  # it was tried on one image when it was loaded
            await asyncio.sleep(0.005)
        promote("m2")
        while len(detector.looks) < 3:  # the new one is being tried while the old one still answers
            await asyncio.sleep(0.005)
        assert (await client.post("/setup", json={})).json()["model_version"] == workspace.prediction_version(
            "m1"
        )
        detector.go.set()
        (old,) = (await under_way).json()["results"]
        assert old["model_version"] == workspace.prediction_version("m1")
        while (await client.post("/setup", json={})).json()["model_version"] != workspace.prediction_version(
            "m2"
        ):
            await asyncio.sleep(0.005)
        (new,) = (await client.post("/predict", json=request_body(task(images[0])))).json()["results"]
        assert new["model_version"] == workspace.prediction_version("m2")

    play(scene, detector=detector)


def test_a_image_is_looked_at_once_however_often_it_is_asked_for(
    play: Play, promote: Promote, request_body: Make, task: Make, workspace: Workspace
) -> None:
    promote("m1")
    image = workspace.images()[0]
    box = found_by(workspace, "m1", image).detections[0].box
    middle = (50 * (box.x1 + box.x2) / image.width, 50 * (box.y1 + box.y2) / image.height)
    detector = Held()

    async def scene(client: httpx.AsyncClient) -> None:
        body = request_body(task(image))
        answers = await asyncio.gather(*(client.post("/predict", json=body) for _ in range(5)))
        assert {answer.status_code for answer in answers} == {200}
        await client.post("/predict", json=request_body(task(image), result=[click(*middle, "rust")]))
        assert detector.looks == [1, 1]  # once when it was loaded, once for all of these
        put(image.path, workspace.images()[1].path.read_bytes())
        await client.post("/predict", json=body)
        assert detector.looks == [1, 1, 1]

    play(scene, detector=detector)


def test_no_more_images_are_remembered_than_allowed(
    play: Play, promote: Promote, request_body: Make, task: Make, workspace: Workspace
) -> None:
    promote("m1")
    one, other = workspace.images()[:2]
    detector = Held()

    async def scene(client: httpx.AsyncClient) -> None:
        for image in (one, one, other, other, one):
            await client.post("/predict", json=request_body(task(image)))
        assert detector.looks == [1, 1, 1, 1]  # the first when it was loaded

    play(scene, detector=detector, limits=ServiceLimits(images=1, look_s=0.01))


def test_a_damaged_image_costs_nobody_else_an_answer(
    play: Play, promote: Promote, request_body: Make, task: Make, workspace: Workspace
) -> None:
    promote("m1")
    *good, damaged = workspace.images()[1:5]
    put(damaged.path, damaged.path.read_bytes()[:200])  # its header is whole

    async def scene(client: httpx.AsyncClient) -> None:
        body = request_body(task(damaged), *map(task, good))
        results = (await client.post("/predict", json=body)).json()["results"]
        assert results[0] == []
        assert all(result["model_version"] for result in results[1:])

    play(scene)


def put(path: Path, content: bytes) -> None:
    """Another file in its place; the image that it may share its bytes with stays as it is."""
    path.unlink()
    path.write_bytes(content)
