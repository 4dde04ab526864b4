"""Live pre-annotations and smart tools as annotators meet them: a real Label Studio and the real process."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from annotate.studio.api import Api
from annotate.studio.client import LabelStudio
from annotate.studio.protocol import Connection, OpenTask, Task
from dsmoe_core.config import TrainingConfig
from dsmoe_core.data import coco
from dsmoe_core.schema import Annotation, LabelledImage, Prediction
from pipelines import cli
from pipelines.detectors.stub_detector import StubDetector
from pipelines.rounds.simulated_annotator import load_truth
from pipelines.services import factory
from pipelines.services.ml_backend import lifecycle
from pipelines.settings import DetectorSettings, Environment, StudioSettings, WorkspaceSettings
from pipelines.workspace.ingest import Source, make_workspace
from pipelines.workspace.registry import new_card
from pipelines.workspace.workspace import Workspace
from tests.pipelines.blocks import COLOURS, write_blocks

CHROMIUM = Path("/usr/bin/chromium")
SIDE = 96  # of the images
pytestmark = [pytest.mark.labelstudio, pytest.mark.timeout(600)]
Json = dict[str, Any]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Room:
    """A workspace with a champion, its Label Studio, and bare tasks of its pool."""

    workspace: Workspace
    connection: Connection
    studio: LabelStudio
    project: int
    truth: dict[str, LabelledImage]
    tasks: list[OpenTask]

    def ask(self, path: str, body: Json | None = None) -> Json:
        """As the page's own script asks."""
        sign = {"Authorization": f"Token {self.connection.token}"}
        address = self.connection.url + path
        answer = httpx.post(address, json=body, headers=sign, timeout=60) if body else None
        answer = answer or httpx.get(address, headers=sign, timeout=60)
        answer.raise_for_status()
        return dict(answer.json())

    def load(self, task: OpenTask) -> list[Json]:
        """The pre-annotations of a task that someone opens."""
        return list(self.ask(f"/api/tasks/{task.task_id}?project={self.project}")["predictions"])

    def clicked(self, task: OpenTask, there: Annotation) -> Json:
        """What a smart click on the middle of a box is answered with."""
        with Api(self.connection).client("list back ends") as sdk:
            (row,) = sdk.ml.list(project=self.project)
        box = there.box
        value = {"x": 50 * (box.x1 + box.x2) / SIDE, "y": 50 * (box.y1 + box.y2) / SIDE, "width": 0.4}
        region = {"type": "keypointlabels", "from_name": "click", "to_name": "image", "id": "k"}
        region |= {"value": {**value, "keypointlabels": [there.label]}, "is_positive": True}
        body = {"task": task.task_id, "context": {"result": [region]}}
        return self.ask(f"/api/ml/{row.id}/interactive-annotating", body)


def train(workspace: Workspace, truth: dict[str, LabelledImage], model: str) -> None:
    """Make a new champion."""
    StubDetector().fit(
        images=list(truth.values()),
        vocabulary=workspace.class_book().vocabulary(),
        training=TrainingConfig(),
        out=workspace.registry.folder(model),
        start_from=None,
    )
    workspace.registry.register(
        new_card(model, number=0, parent=None, dataset_version="d", class_book="b", training={})
    )
    workspace.registry.promote(model, "for a test")


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory, environments: Path) -> Iterator[Room]:
    folder = tmp_path_factory.mktemp("room")
    blocks = write_blocks(folder / "data", train=14, px=SIDE)
    settings = WorkspaceSettings(
        title="live blocks",
        studio=StudioSettings(port=free_port(), ml_backend_port=free_port()),
        detector=DetectorSettings(kind="stub"),
    )
    source = Source(blocks / "images", test=coco.read(blocks / "val.json"), classes=list(COLOURS))
    workspace, _ = make_workspace(folder / "workspace", source, settings)
    workspace.complete()
    truth = load_truth(blocks / "train.json", workspace)
    environment = Environment(environments=environments)
    with workspace:
        train(workspace, truth, "m1")
        studio, connection = factory.start_studio(workspace, environment, print)
        assert isinstance(studio, LabelStudio)
        assert connection is not None
        lifecycle.start_ml_backend(workspace, studio, connection, print)
        project = studio.ensure_project(settings.title, workspace.class_book().vocabulary())
        images = [labelled.image for labelled in truth.values()]
        studio.import_tasks(project, [Task(p, 0, "seed", rank, None) for rank, p in enumerate(images)])
        yield Room(workspace, connection, studio, project, truth, studio.open_tasks(project))
        assert cli.run(["services", "down", str(workspace.path)]) == 0
        assert not lifecycle.ml_backend(workspace).status().running


def close(prediction: Json, labelled: LabelledImage) -> bool:
    """Whether a prediction has the boxes that are there, to two pixels."""
    found = sorted((r["value"]["x"], r["value"]["y"]) for r in prediction["result"])
    there = sorted((100 * a.box.x1 / SIDE, 100 * a.box.y1 / SIDE) for a in labelled.annotations)
    return bool(found) and all(pytest.approx(t, abs=2.1) == f for f, t in zip(found, there, strict=False))


def test_an_opened_task_has_live_pre_annotations_and_a_click_is_answered_beside_them(room: Room) -> None:
    task = room.tasks[0]
    (prediction,) = room.opened(task)
    assert prediction["model_version"] == room.workspace.prediction_version("m1")
    assert close(prediction, room.truth[task.key])
    streamed = room.ask(f"/api/projects/{room.project}/next")
    assert [p["model_version"] for p in streamed["predictions"]] == [room.workspace.prediction_version("m1")]
    for there in room.truth[
        task.key
    ].annotations:  # each of them has a pre-annotation of the same class already
        (region,) = room.clicked(task, there)["data"]["result"]
        assert region["value"]["rectanglelabels"] == [there.label]
        assert region["value"]["x"] == pytest.approx(100 * there.box.x1 / SIDE, abs=2.1)


def test_connecting_again_leaves_one_back_end(room: Room) -> None:
    for _ in range(2):
        lifecycle.start_ml_backend(room.workspace, room.studio, room.connection, print)
    with Api(room.connection).client("list back ends") as sdk:
        (row,) = sdk.ml.list(project=room.project)
    assert (row.title, row.state) == ("dsmoe", "CO")
    assert "live pre-annotations: m1+" in lifecycle.status_message(room.workspace, room.connection.url)


def test_killed_people_go_on_working_and_restarted_pre_annotations_come_back(room: Room) -> None:
    one, other = room.tasks[1:3]
    ml_backend = lifecycle.ml_backend(room.workspace)
    pid = ml_backend.status().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    while ml_backend.status().running:
        time.sleep(0.01)
    assert room.opened(one) == []
    assert room.ask(f"/api/projects/{room.project}/next")["id"]  # the stream goes on
    assert "errors" in room.clicked(one, room.truth[one.key].annotations[0])
    room.studio.submit(room.project, one, [], seconds=1.0)
    assert lifecycle.status_message(room.workspace, room.connection.url).startswith(
        "live pre-annotations are down"
    )
    lifecycle.start_ml_backend(room.workspace, room.studio, room.connection, print)
    (prediction,) = room.opened(other)
    assert close(prediction, room.truth[other.key])
    assert room.clicked(other, room.truth[other.key].annotations[0])["data"]["result"]


def test_a_promotion_reaches_the_next_task_without_a_restart(room: Room) -> None:
    train(room.workspace, room.truth, "m2")
    version = room.workspace.prediction_version("m2")
    while lifecycle.ml_backend(room.workspace).status().version != version:
        time.sleep(0.05)
    (prediction,) = room.opened(room.tasks[3])
    assert prediction["model_version"] == version


@pytest.fixture
def page(room: Room) -> Iterator[Page]:
    """A page that is signed in."""
    if not CHROMIUM.exists():
        pytest.skip(f"no Chromium at {CHROMIUM}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        page = browser.new_page(viewport={"width": 1500, "height": 900})
        page.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)  # two busy cores
        page.goto(f"{room.connection.url}/user/login/")
        page.fill("input[name=email]", room.connection.username)
        page.fill("input[name=password]", room.connection.password)
        page.click("button[type=submit]")
        page.wait_for_url(re.compile(r"/(projects)?/?$"))
        yield page
        browser.close()


def choose(page: Page, tool: str, label: str, control: int) -> None:
    """Takes up a smart tool with a class; controls stand in the order: boxes, smart click, smart box."""
    page.locator(".lsf-tool_smart").first.hover()
    page.locator(f'.lsf-toolbar__smart [aria-label="{tool}"]').last.click()
    page.locator(".lsf-label", has_text=label).nth(control).click()
    expect(page.locator(".lsf-label_selected")).to_have_count(1)


@pytest.mark.browser
def test_smart_tools_make_boxes_on_the_page_beside_a_pre_annotation_of_the_same_class(
    room: Room, page: Page, tmp_path: Path
) -> None:
    task = next(t for t in room.tasks[6:] if len(room.truth[t.key].annotations) > 1)
    (prediction,) = room.opened(task)
    (shown, *others) = prediction["result"]
    label = shown["value"]["rectanglelabels"][0]
    drawn = (shown["value"]["x"], shown["value"]["y"])
    boxes = [a.box for a in room.truth[task.key].annotations]
    meant = next(b for b in boxes if (100 * b.x1 / SIDE, 100 * b.y1 / SIDE) != pytest.approx(drawn, abs=2.1))
    page.goto(f"{room.connection.url}/projects/{room.project}/data?task={task.task_id}")
    regions = page.locator(".lsf-outliner-item")
    expect(regions).to_have_count(1 + len(others))
    for _ in others:  # of the pre-annotations one is left, so that there is room to click
        regions.last.click()
        page.keyboard.press("Backspace")
    expect(regions).to_have_count(1)
    page.get_by_test_id("bottombar-auto-annotation-toggle").click(force=True)
    choose(page, "key-point-tool", label, 1)
    image = page.locator(".lsf-image canvas").first

    def on_screen(x: float, y: float) -> tuple[float, float]:
        area = image.bounding_box()
        assert area is not None
        return area["x"] + x * area["width"] / SIDE, area["y"] + y * area["height"] / SIDE

    accept = page.get_by_test_id("bottombar-accept-suggestions-button")
    page.mouse.click(*on_screen((meant.x1 + meant.x2) / 2, (meant.y1 + meant.y2) / 2))
    expect(accept).to_have_count(1)
    page.screenshot(path=tmp_path / "suggested.png")
    page.get_by_test_id("bottombar-reject-suggestions-button").click()
    expect(regions).to_have_count(1)  # the point is gone with the suggestion
    choose(page, "rectangle-tool", label, 2)
    page.mouse.move(*on_screen(meant.x1 - 3, meant.y1 - 3))
    page.mouse.down()
    page.mouse.move(*on_screen(meant.x2 + 2, meant.y2 + 3), steps=8)
    page.mouse.up()
    accept.click()
    expect(regions).to_have_count(2)
    page.screenshot(path=tmp_path / "accepted.png")
    with page.expect_response(lambda r: "/annotations" in r.url and r.request.method == "POST") as posted:
        page.get_by_test_id("bottombar-submit-button").click()
    assert posted.value.status == 201
    got = next(h for h in room.studio.harvest(room.project) if h.key == task.key)
    assert {a.label for a in got.annotations} == {label}
    assert any(a.box.corners == pytest.approx(meant.corners, abs=2.1) for a in got.annotations)
    assert len(got.annotations) == 2


def test_pushed_pre_annotations_stay_whether_the_back_end_runs_or_not(room: Room) -> None:
    """The stream shows those of the project's version; a back end of that name would take them away."""
    images = [room.truth[task.key].image for task in room.tasks[4:6]]
    vocabulary = room.workspace.class_book().vocabulary()
    found = StubDetector().predict(room.workspace.registry.folder("m2"), vocabulary, images)
    tasks = [
        Task(p, 1, "ranked", rank, pushed(f)) for rank, (p, f) in enumerate(zip(images, found, strict=True))
    ]
    ids = room.studio.import_tasks(room.project, tasks)
    lifecycle.ml_backend(room.workspace).down()
    for task in room.studio.open_tasks(room.project):
        if task.task_id not in ids.values():
            room.studio.submit(room.project, task, [], seconds=1.0)
    streamed = room.ask(f"/api/projects/{room.project}/next")
    assert [p["model_version"] for p in streamed["predictions"]] == ["pushed+book"]
    lifecycle.start_ml_backend(room.workspace, room.studio, room.connection, print)
    streamed = room.ask(f"/api/projects/{room.project}/next")
    assert [p["model_version"] for p in streamed["predictions"]] == ["pushed+book"]


def pushed(found: Prediction) -> Prediction:
    return Prediction(found.key, found.detections, found.routing, found.uncertainty, "pushed+book")
