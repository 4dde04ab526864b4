"""Live pre-annotations and smart tools with a real Label Studio and the real ML backend process."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

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
from pipelines.settings.detector import DetectorSettings
from pipelines.settings.environment import Environment
from pipelines.settings.studio import StudioSettings
from pipelines.settings.workspace import WorkspaceSettings
from pipelines.workspace.ingest import Source, make_workspace
from pipelines.workspace.registry import new_card
from pipelines.workspace.workspace import Workspace
from tests.annotate.studio.browser import IMAGE, REGION, signed_in
from tests.pipelines.blocks import COLOURS, write_blocks

SIDE = 96  # of the images, in pixels
pytestmark = [pytest.mark.labelstudio, pytest.mark.timeout(600)]
Json = dict[str, Any]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Setup:
    """A workspace with a champion, its Label Studio, and tasks of its pool without pre-annotations."""

    workspace: Workspace
    connection: Connection
    studio: LabelStudio
    project: int
    truth: dict[str, LabelledImage]
    tasks: list[OpenTask]

    def request(self, path: str, body: Json | None = None) -> Json:
        """Call Label Studio's API as its page does."""
        headers = {"Authorization": f"Token {self.connection.token}"}
        address = self.connection.url + path
        answer = httpx.post(address, json=body, headers=headers, timeout=60) if body else None
        answer = answer or httpx.get(address, headers=headers, timeout=60)
        answer.raise_for_status()
        return dict(answer.json())

    def pre_annotations(self, task: OpenTask) -> list[Json]:
        """The pre-annotations that Label Studio shows when a task is opened."""
        return list(self.request(f"/api/tasks/{task.task_id}?project={self.project}")["predictions"])

    def smart_click(self, task: OpenTask, target: Annotation) -> Json:
        """Response to a smart click on the middle of a box."""
        with Api(self.connection).client("list ML backends") as sdk:
            (row,) = sdk.ml.list(project=self.project)
        box = target.box
        value = {"x": 50 * (box.x1 + box.x2) / SIDE, "y": 50 * (box.y1 + box.y2) / SIDE, "width": 0.4}
        region = {"type": "keypointlabels", "from_name": "click", "to_name": "image", "id": "k"}
        region |= {"value": {**value, "keypointlabels": [target.label]}, "is_positive": True}
        body = {"task": task.task_id, "context": {"result": [region]}}
        return self.request(f"/api/ml/{row.id}/interactive-annotating", body)


def train(workspace: Workspace, truth: dict[str, LabelledImage], model: str) -> None:
    """Train a stub, register and promote it."""
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
def setup(tmp_path_factory: pytest.TempPathFactory, environments: Path) -> Iterator[Setup]:
    folder = tmp_path_factory.mktemp("setup")
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
        yield Setup(workspace, connection, studio, project, truth, studio.open_tasks(project))
        assert cli.run(["services", "down", str(workspace.path)]) == 0
        assert not lifecycle.ml_backend(workspace).status().running


def close(prediction: Json, labelled: LabelledImage) -> bool:
    """Whether a prediction has the true boxes, to two pixels."""
    predicted = sorted((r["value"]["x"], r["value"]["y"]) for r in prediction["result"])
    true = sorted((100 * a.box.x1 / SIDE, 100 * a.box.y1 / SIDE) for a in labelled.annotations)
    return bool(predicted) and all(
        pytest.approx(t, abs=2.1) == p for p, t in zip(predicted, true, strict=False)
    )


def test_opened_task_has_live_pre_annotations_and_smart_click_works(setup: Setup) -> None:
    task = setup.tasks[0]
    (prediction,) = setup.pre_annotations(task)
    assert prediction["model_version"] == setup.workspace.prediction_version("m1")
    assert close(prediction, setup.truth[task.key])
    streamed = setup.request(f"/api/projects/{setup.project}/next")
    assert [p["model_version"] for p in streamed["predictions"]] == [setup.workspace.prediction_version("m1")]
    for target in setup.truth[task.key].annotations:  # each has a pre-annotation of the same class already
        (region,) = setup.smart_click(task, target)["data"]["result"]
        assert region["value"]["rectanglelabels"] == [target.label]
        assert region["value"]["x"] == pytest.approx(100 * target.box.x1 / SIDE, abs=2.1)


def test_connecting_twice_makes_one_ml_backend(setup: Setup) -> None:
    for _ in range(2):
        lifecycle.start_ml_backend(setup.workspace, setup.studio, setup.connection, print)
    with Api(setup.connection).client("list ML backends") as sdk:
        (row,) = sdk.ml.list(project=setup.project)
    assert (row.title, row.state) == ("dsmoe", "CO")
    assert "live pre-annotations: m1+" in lifecycle.status_message(setup.workspace, setup.connection.url)


def test_annotation_goes_on_while_the_ml_backend_is_down(setup: Setup) -> None:
    first, second = setup.tasks[1:3]
    ml_backend = lifecycle.ml_backend(setup.workspace)
    pid = ml_backend.status().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    while ml_backend.status().running:
        time.sleep(0.01)
    assert setup.pre_annotations(first) == []
    assert setup.request(f"/api/projects/{setup.project}/next")["id"]  # the stream goes on
    assert "errors" in setup.smart_click(first, setup.truth[first.key].annotations[0])
    setup.studio.submit(setup.project, first, [], seconds=1.0)
    assert lifecycle.status_message(setup.workspace, setup.connection.url).startswith(
        "live pre-annotations are down"
    )
    lifecycle.start_ml_backend(setup.workspace, setup.studio, setup.connection, print)
    (prediction,) = setup.pre_annotations(second)
    assert close(prediction, setup.truth[second.key])
    assert setup.smart_click(second, setup.truth[second.key].annotations[0])["data"]["result"]


def test_promotion_is_served_without_a_restart(setup: Setup) -> None:
    train(setup.workspace, setup.truth, "m2")
    version = setup.workspace.prediction_version("m2")
    while lifecycle.ml_backend(setup.workspace).status().version != version:
        time.sleep(0.05)
    (prediction,) = setup.pre_annotations(setup.tasks[3])
    assert prediction["model_version"] == version


@pytest.fixture
def page(setup: Setup) -> Iterator[Page]:
    """A browser page, signed in."""
    with signed_in(setup.connection) as page:
        yield page


def choose(page: Page, tool: str, label: str, control: int) -> None:
    """Select a smart tool and a class; order of the controls: boxes, smart click, smart box."""
    page.locator(".lsf-tool_smart").first.hover()
    page.locator(f'.lsf-toolbar__smart [aria-label="{tool}"]').last.click()
    expect(page.locator(".lsf-label").locator("visible=true")).to_have_count(
        len(COLOURS)
    )  # of this tool only
    page.locator(".lsf-label", has_text=label).nth(control).click()
    expect(page.locator(".lsf-label_selected")).to_have_count(1)


@pytest.mark.browser
def test_smart_tools_add_boxes_next_to_a_pre_annotation_of_the_same_class(
    setup: Setup, page: Page, tmp_path: Path
) -> None:
    task = next(t for t in setup.tasks[6:] if len(setup.truth[t.key].annotations) > 1)
    (prediction,) = setup.pre_annotations(task)
    (kept, *others) = prediction["result"]
    label = kept["value"]["rectanglelabels"][0]
    kept_corner = (kept["value"]["x"], kept["value"]["y"])
    boxes = [a.box for a in setup.truth[task.key].annotations]
    corners = {b: (100 * b.x1 / SIDE, 100 * b.y1 / SIDE) for b in boxes}
    target = next(b for b in boxes if corners[b] != pytest.approx(kept_corner, abs=2.1))
    page.goto(f"{setup.connection.url}/projects/{setup.project}/data?task={task.task_id}")
    regions = page.locator(REGION)
    expect(regions).to_have_count(1 + len(others))
    for _ in others:  # keep one pre-annotation only, so that there is setup to click
        regions.last.click()
        page.keyboard.press("Backspace")
    expect(regions).to_have_count(1)
    page.get_by_test_id("bottombar-auto-annotation-toggle").click(force=True)
    choose(page, "key-point-tool", label, 1)
    image = page.locator(IMAGE).first

    def on_screen(x: float, y: float) -> tuple[float, float]:
        area = image.bounding_box()
        assert area is not None
        return area["x"] + x * area["width"] / SIDE, area["y"] + y * area["height"] / SIDE

    accept = page.get_by_test_id("bottombar-accept-suggestions-button")
    page.mouse.click(*on_screen((target.x1 + target.x2) / 2, (target.y1 + target.y2) / 2))
    expect(accept).to_have_count(1)
    page.screenshot(path=tmp_path / "suggested.png")
    page.get_by_test_id("bottombar-reject-suggestions-button").click()
    expect(regions).to_have_count(1)  # the key-point is removed with the suggestion
    choose(page, "rectangle-tool", label, 2)
    page.mouse.move(*on_screen(target.x1 - 3, target.y1 - 3))
    page.mouse.down()
    page.mouse.move(*on_screen(target.x2 + 2, target.y2 + 3), steps=8)
    page.mouse.up()
    accept.click()
    expect(regions).to_have_count(2)
    page.screenshot(path=tmp_path / "accepted.png")
    with page.expect_response(lambda r: "/annotations" in r.url and r.request.method == "POST") as posted:
        page.get_by_test_id("bottombar-submit-button").click()
    assert posted.value.status == 201
    got = next(h for h in setup.studio.harvest(setup.project) if h.key == task.key)
    assert {a.label for a in got.annotations} == {label}
    assert any(a.box.corners == pytest.approx(target.corners, abs=2.1) for a in got.annotations)
    assert len(got.annotations) == 2


def test_pushed_pre_annotations_stay_with_and_without_the_ml_backend(setup: Setup) -> None:
    """Label Studio's labelling stream shows predictions of the project's model version only."""
    images = [setup.truth[task.key].image for task in setup.tasks[4:6]]
    vocabulary = setup.workspace.class_book().vocabulary()
    champion = setup.workspace.champion()
    assert champion is not None
    predictions = StubDetector().predict(setup.workspace.registry.folder(champion), vocabulary, images)
    tasks = [
        Task(p, 1, "ranked", rank, pushed(f))
        for rank, (p, f) in enumerate(zip(images, predictions, strict=True))
    ]
    ids = setup.studio.import_tasks(setup.project, tasks)
    lifecycle.ml_backend(setup.workspace).down()
    for task in setup.studio.open_tasks(setup.project):
        if task.task_id not in ids.values():
            setup.studio.submit(setup.project, task, [], seconds=1.0)
    streamed = setup.request(f"/api/projects/{setup.project}/next")
    assert [p["model_version"] for p in streamed["predictions"]] == ["pushed+book"]
    lifecycle.start_ml_backend(setup.workspace, setup.studio, setup.connection, print)
    streamed = setup.request(f"/api/projects/{setup.project}/next")
    assert [p["model_version"] for p in streamed["predictions"]] == ["pushed+book"]


def pushed(prediction: Prediction) -> Prediction:
    """The same prediction under another model version."""
    return replace(prediction, version="pushed+book")
