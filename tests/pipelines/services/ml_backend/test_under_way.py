"""Requests under way: a full line, a model that hangs, a promotion meanwhile, what is remembered."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx

from dsmoe_core.schema import Picture
from pipelines.services.ml_backend.service import Limits
from pipelines.workspace.workspace import Workspace
from tests.pipelines.services.ml_backend.asking import Held, Make, Play, Promote, click, found_by


def test_a_full_line_sends_away_at_once_and_says_when_to_come_back(
    play: Play, promote: Promote, request_body: Make, task: Make, workspace: Workspace
) -> None:
    promote("m1")
    pictures = workspace.pictures()
    detection = Held()

    async def scene(client: httpx.AsyncClient) -> None:
        detection.go.clear()

        def ask(picture: Picture) -> asyncio.Task[httpx.Response]:
            return asyncio.create_task(client.post("/predict", json=request_body(task(picture))))

        asked = [ask(pictures[0])]
        while len(detection.looks) < 2:  # it is being answered; the first look was when the model came in
            await asyncio.sleep(0.005)
        asked += [ask(picture) for picture in pictures[1:3]]
        while (await client.get("/health")).json()["waiting"] < 2:
            await asyncio.sleep(0.005)
        refused = await client.post("/predict", json=request_body(task(pictures[3])))
        assert refused.status_code == 503
        assert refused.headers["Retry-After"] == "1"
        assert "waiting already" in refused.json()["error"]
        detection.go.set()
        assert [answer.status_code for answer in await asyncio.gather(*asked)] == [200] * 3

    play(scene, detection=detection, limits=Limits(waiting=2, batch=1, look_s=0.01))


def test_a_model_that_hangs_costs_a_request_its_time_limit_and_no_more(
    play: Play, promote: Promote, request_body: Make, task: Make, workspace: Workspace
) -> None:
    promote("m1")
    first, second = workspace.pictures()[:2]
    detection = Held()

    async def scene(client: httpx.AsyncClient) -> None:
        known = (await client.post("/predict", json=request_body(task(first)))).json()["results"]
        detection.go.clear()
        late = await client.post("/predict", json=request_body(task(second)))
        assert late.status_code == 504
        assert (await client.get("/health")).json()["waiting"] == 0
        # Of several tasks, those that are known come back; the rest is asked for again another time.
        part = await client.post("/predict", json=request_body(task(first), task(second)))
        assert part.json() == {"results": [*known, []]}
        detection.go.set()
        assert (await client.post("/predict", json=request_body(task(second)))).status_code == 200

    play(scene, detection=detection, limits=Limits(seconds=0.2, look_s=0.01))


def test_a_promotion_changes_who_answers_and_requests_under_way_end_with_the_old_one(
    play: Play, promote: Promote, request_body: Make, task: Make, workspace: Workspace
) -> None:
    promote("m1")
    pictures = workspace.pictures()
    detection = Held()

    async def scene(client: httpx.AsyncClient) -> None:
        detection.go.clear()
        under_way = asyncio.create_task(client.post("/predict", json=request_body(task(pictures[0]))))
        while len(detection.looks) < 2:  # it was tried on one picture when it was loaded
            await asyncio.sleep(0.005)
        promote("m2")
        while len(detection.looks) < 3:  # the new one is being tried while the old one still answers
            await asyncio.sleep(0.005)
        assert (await client.post("/setup", json={})).json()["model_version"] == workspace.version_of("m1")
        detection.go.set()
        (old,) = (await under_way).json()["results"]
        assert old["model_version"] == workspace.version_of("m1")
        while (await client.post("/setup", json={})).json()["model_version"] != workspace.version_of("m2"):
            await asyncio.sleep(0.005)
        (new,) = (await client.post("/predict", json=request_body(task(pictures[0])))).json()["results"]
        assert new["model_version"] == workspace.version_of("m2")

    play(scene, detection=detection)


def test_a_picture_is_looked_at_once_however_often_it_is_asked_for(
    play: Play, promote: Promote, request_body: Make, task: Make, workspace: Workspace
) -> None:
    promote("m1")
    picture = workspace.pictures()[0]
    box = found_by(workspace, "m1", picture).findings[0].box
    middle = (50 * (box.x1 + box.x2) / picture.width, 50 * (box.y1 + box.y2) / picture.height)
    detection = Held()

    async def scene(client: httpx.AsyncClient) -> None:
        body = request_body(task(picture))
        several = await asyncio.gather(*(client.post("/predict", json=body) for _ in range(5)))
        assert {answer.status_code for answer in several} == {200}
        await client.post("/predict", json=request_body(task(picture), result=[click(*middle, "rust")]))
        assert detection.looks == [1, 1]  # once when it was loaded, once for all of these
        put(picture.path, workspace.pictures()[1].path.read_bytes())
        await client.post("/predict", json=body)
        assert detection.looks == [1, 1, 1]

    play(scene, detection=detection)


def test_no_more_pictures_are_remembered_than_allowed(
    play: Play, promote: Promote, request_body: Make, task: Make, workspace: Workspace
) -> None:
    promote("m1")
    one, other = workspace.pictures()[:2]
    detection = Held()

    async def scene(client: httpx.AsyncClient) -> None:
        for picture in (one, one, other, other, one):
            await client.post("/predict", json=request_body(task(picture)))
        assert detection.looks == [1, 1, 1, 1]  # the first when it was loaded

    play(scene, detection=detection, limits=Limits(pictures=1, look_s=0.01))


def test_a_damaged_picture_costs_nobody_else_an_answer(
    play: Play, promote: Promote, request_body: Make, task: Make, workspace: Workspace
) -> None:
    promote("m1")
    *good, damaged = workspace.pictures()[1:5]
    put(damaged.path, damaged.path.read_bytes()[:200])  # its header is whole

    async def scene(client: httpx.AsyncClient) -> None:
        body = request_body(task(damaged), *map(task, good))
        results = (await client.post("/predict", json=body)).json()["results"]
        assert results[0] == []
        assert all(result["model_version"] for result in results[1:])

    play(scene)


def put(path: Path, content: bytes) -> None:
    """Another file in its place; the picture that it may share its bytes with stays as it is."""
    path.unlink()
    path.write_bytes(content)
