"""Faults between dsmoe and Label Studio, caused on a real server: no image or annotation is lost or doubled.

Each message has to be in the table of docs/label-studio-faults.md.
"""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from annotate.studio import task_format, task_import
from annotate.studio.api import Api
from annotate.studio.client import LabelStudio
from annotate.studio.convert import to_result
from annotate.studio.label_config import label_config
from annotate.studio.protocol import Connection, OpenTask, Region, Task
from annotate.studio.server import LabelStudioServer
from dsmoe_core.errors import DsmoeError
from dsmoe_core.schema import Arm, Box, Detection, ImageRecord, Prediction, Routing
from pipelines.detectors.stub_detector import StubDetector
from pipelines.progress import SilentProgress
from pipelines.rounds import loop
from pipelines.rounds.context import LoopContext
from pipelines.rounds.harvesting import harvest
from pipelines.workspace.workspace import Workspace

pytestmark = [pytest.mark.labelstudio, pytest.mark.timeout(600)]
BUDGET = 7
DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "label-studio-faults.md"


class InterruptingProgress(SilentProgress):
    """Calls ``at_push`` once, when half of the tasks are sent."""

    def __init__(self) -> None:
        self.at_push: Callable[[], None] | None = None

    def advance(self, done: int, total: int, note: str = "") -> None:
        if self.at_push is not None and done >= total // 2:
            action, self.at_push = self.at_push, None
            action()


@dataclass
class Scene:
    """A workspace and a real server."""

    workspace: Workspace
    server: LabelStudioServer
    connection: Connection
    progress: InterruptingProgress

    def context(self, timeout: float = 60.0, token: str | None = None) -> LoopContext:
        """A context with a new client, as a new process creates it."""
        connection = replace(self.connection, token=token) if token else self.connection
        studio = LabelStudio(connection, timeout=timeout)
        return LoopContext(self.workspace, studio, StubDetector(), self.progress)

    @property
    def project(self) -> int:
        return self.context().project()

    def open(self, **options: Any) -> None:
        loop.open_round(self.context(**options))

    def open_tasks(self) -> list[OpenTask]:
        return self.context().studio.open_tasks(self.project)

    def label(self, task: OpenTask) -> None:
        box = Region(uuid.uuid4().hex[:10], Box(5.0, 5.0, 40.0, 40.0), self.classes[0], "manual", None)
        self.context().studio.submit(self.project, task, [box], seconds=2.0)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.workspace.class_book().vocabulary().names

    def harvest(self) -> dict[str, Any]:
        """Harvest round 0 as `dsmoe round close` does; returns the counts."""
        counts: dict[str, Any] = harvest(self.context(), 0, False)["counts"]
        return counts

    def sdk(self) -> Any:
        return Api(self.connection).client("do what the test asks")

    def signal(self, sign: signal.Signals) -> None:
        pid = self.server.status().pid
        assert pid is not None
        os.killpg(pid, sign)
        while sign is signal.SIGKILL and Api.is_up(self.connection.url):
            time.sleep(0.05)  # the process takes a moment to end

    def check_complete(self) -> None:
        """Check that every image of round 0 is on the server once and comes back after it is annotated."""
        keys = [row["data"]["key"] for row in self.rows()]
        assert Counter(keys) == Counter(task.key for task in self.workspace.journal.tasks(0))
        assert len(keys) == BUDGET
        for task in self.open_tasks():
            self.label(task)
        counts = self.harvest()
        assert (counts["answered"], counts["new_boxes"], counts["added"]) == (BUDGET, BUDGET, BUDGET)

    def rows(self) -> list[dict[str, Any]]:
        response = httpx.get(
            f"{self.connection.url}/api/tasks/",
            headers={"Authorization": f"Token {self.connection.token}"},
            params={"project": self.project, "fields": "all", "page_size": 1000},
        )
        rows: list[dict[str, Any]] = response.json()["tasks"]
        return rows


@pytest.fixture
def scene(workspace: Workspace, server: LabelStudioServer, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(task_import, "BATCH", 2)
    settings = workspace.settings
    workspace.settings = settings.model_copy(
        update={
            "title": f"faults {uuid.uuid4().hex[:8]}",
            "round": settings.round.model_copy(update={"budget": BUDGET}),
        }
    )
    return Scene(workspace, server, server.start(), InterruptingProgress())


def message_of(work: Callable[[], Any]) -> str:
    """The error message of a call that must fail."""
    with pytest.raises(DsmoeError) as caught:
        work()
    text = str(caught.value)
    assert "\n" not in text
    return text


def check_documented(text: str, *names: str) -> None:
    """Check that the message is in the table of faults, where ``…`` stands for these names."""
    for name in names:
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "…", text)
    assert f"| {text} |" in DOCUMENT.read_text(encoding="utf-8"), text


def test_server_dies_during_a_push(scene: Scene) -> None:
    scene.progress.at_push = lambda: scene.signal(signal.SIGKILL)
    check_documented(message_of(scene.open), scene.connection.url)
    scene.server.start()
    assert 0 < len(scene.rows()) < BUDGET
    scene.open()
    scene.check_complete()


def test_server_hangs_during_a_push(scene: Scene) -> None:
    scene.progress.at_push = lambda: scene.signal(signal.SIGSTOP)
    message = message_of(lambda: scene.open(timeout=3.0))
    scene.signal(signal.SIGCONT)
    check_documented(message, scene.connection.url, str(scene.project))
    scene.open()  # while the server still works on the first requests
    scene.open()
    scene.check_complete()


@pytest.fixture
def personal_token(scene: Scene) -> Iterator[str]:
    token = scene_post(scene, "/api/token/").json()["token"]
    yield token
    scene_post(scene, "/api/token/blacklist/", refresh=token)  # only one at a time can exist


def scene_post(scene: Scene, path: str, **body: Any) -> httpx.Response:
    headers = {"Authorization": f"Token {scene.connection.token}"}
    return httpx.post(scene.connection.url + path, headers=headers, json=body)


def test_token_is_revoked_during_a_push(scene: Scene, personal_token: str) -> None:
    def revoke() -> None:
        scene_post(scene, "/api/token/blacklist/", refresh=personal_token)

    scene.progress.at_push = revoke
    scene.open(token=personal_token)  # the access token made from it stays valid for five minutes
    check_documented(message_of(lambda: scene.open(token=personal_token)), scene.connection.url)
    scene.check_complete()


def test_task_is_deleted(scene: Scene) -> None:
    scene.open()
    first, second, *_ = scene.open_tasks()
    scene.label(second)
    with scene.sdk() as sdk:
        sdk.tasks.delete(str(first.task_id))
    check_documented(message_of(lambda: scene.label(first)), str(first.task_id))
    for task in scene.open_tasks():
        scene.label(task)
    check_documented(message_of(scene.harvest))
    scene.open()
    assert [task.key for task in scene.open_tasks()] == [first.key]
    scene.check_complete()


def test_task_is_deleted_and_its_round_is_closed_without_it(scene: Scene) -> None:
    settings = scene.workspace.settings
    small = settings.round.model_copy(update={"budget": 3})
    scene.workspace.settings = settings.model_copy(update={"round": small})
    scene.open()
    for task in scene.open_tasks():
        scene.label(task)
    loop.close_round(scene.context())
    scene.open()
    first, second, *others = scene.open_tasks()
    with scene.sdk() as sdk:
        sdk.tasks.delete(str(first.task_id))
    for task in others:
        scene.label(task)
    loop.close_round(scene.context(), partial=True)
    scene.open()
    sent_again = {task.key for task in scene.open_tasks()}
    assert second.key in sent_again  # it is still there, with new pre-annotations
    assert first.key not in sent_again


def test_project_is_deleted(scene: Scene) -> None:
    scene.open()
    context, project = scene.context(), scene.project
    done, *_ = scene.open_tasks()
    scene.label(done)
    message_of(scene.harvest)  # six are missing; the seventh is in the journal
    with scene.sdk() as sdk:
        sdk.projects.delete(project)
    check_documented(message_of(lambda: context.studio.open_tasks(project)), str(project))
    assert scene.workspace.journal.harvests().keys() == {done.key}
    scene.open()
    assert len(scene.open_tasks()) == BUDGET - 1  # the seventh is not sent again
    for task in scene.open_tasks():
        scene.label(task)
    assert scene.harvest()["new_boxes"] == BUDGET


def test_another_workspace_has_a_project_with_this_title(scene: Scene) -> None:
    settings, book = scene.workspace.settings, scene.workspace.class_book()
    scene.context().studio.ensure_project(settings.title, book.vocabulary(), owner="1f0c9a2e")
    check_documented(message_of(scene.open), settings.title, "1f0c9a2e", scene.workspace.unique_id())
    scene.workspace.settings = settings.model_copy(update={"title": f"{settings.title} b"})
    scene.open()
    scene.check_complete()


def test_label_is_renamed_on_the_server(scene: Scene) -> None:
    scene.open()
    project, vocabulary = scene.project, scene.workspace.class_book().vocabulary()
    config = label_config(vocabulary)
    renamed = config.replace('value="brick"', 'value="Backstein"')
    assert renamed != config
    first, *_ = scene.open_tasks()
    region = Region("hand", Box(5.0, 5.0, 40.0, 40.0), "Backstein", "manual", None)
    result = to_result(region, first.width, first.height)
    with scene.sdk() as sdk:
        sdk.projects.update(project, label_config=renamed)
        created = sdk.annotations.create(first.task_id, result=[result])
    image = scene.workspace.images_by_key()[first.key].name
    check_documented(message_of(scene.harvest), image, f"task {first.task_id}, annotation {created.id}")
    with scene.sdk() as sdk:
        result["value"]["rectanglelabels"] = ["brick"]
        sdk.annotations.update(created.id, result=[result])
    scene.check_complete()
    with scene.sdk() as sdk:  # no annotation uses it: it is corrected silently
        assert "Backstein" not in sdk.projects.get(project).label_config
        sdk.projects.update(project, label_config=renamed)
    scene.harvest()
    with scene.sdk() as sdk:
        assert "Backstein" not in sdk.projects.get(project).label_config


def test_bulk_import_is_repeated(scene: Scene) -> None:
    scene.open()
    copies = [{"data": row["data"]} for row in scene.rows()]
    with scene.sdk() as sdk:
        sdk.projects.import_tasks(scene.project, request=copies)
    assert len(scene.rows()) == 2 * BUDGET
    scene.open()
    scene.check_complete()


def test_one_invalid_box_in_a_thousand_tasks(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    studio, project = scene.context().studio, scene.project
    (image, *_) = scene.workspace.images("pool")

    def task(i: int, corner: float = 30.0, label: str = scene.classes[0]) -> Task:
        detection = Detection(Box(5.0, 5.0, corner, 30.0), label, 0.5, {label: 0.5}, entropy=0.1)
        prediction = Prediction(f"k{i}", (detection,), Routing((0,), (1.0,), 0.0), 0.4, "m+b")
        record = ImageRecord(f"k{i}", f"{i}.png", image.path, image.width, image.height)
        return Task(record, 0, Arm.RANKED, i, prediction)

    good = [task(i) for i in range(1000)]
    for invalid in (task(500, 9000.0), task(500, label="crack")):
        tasks = [*good[:500], invalid, *good[501:]]
        check_documented(message_of(partial(studio.import_tasks, project, tasks)))
    assert scene.rows() == []
    studio.import_tasks(project, good)
    assert Counter(len(t.pre_annotations) for t in studio.open_tasks(project)) == {1: 1000}


def test_server_drops_invalid_tasks(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Label Studio drops an invalid task silently, so the tasks are counted after an import."""
    scene.open()
    original = task_format.task_json

    def invalid(task: Task, *more: Any) -> dict[str, Any]:
        body = original(task, *more)
        body["predictions"] = [{"model_version": "m+b", "score": 7.0, "result": []}]
        return body

    monkeypatch.setattr(task_format, "task_json", invalid)
    check_documented(message_of(scene.open))
    monkeypatch.undo()
    scene.check_complete()


def test_clock_of_the_server_is_set_back(scene: Scene) -> None:
    scene.open()
    first, second, *others = scene.open_tasks()
    scene.label(first)
    set_clock(scene, "+2 days")  # dates it in the future, as if the clock had been wrong
    message_of(scene.harvest)
    assert scene.workspace.journal.harvests().keys() == {first.key}
    scene.label(second)
    message_of(scene.harvest)
    assert scene.workspace.journal.harvests().keys() == {first.key, second.key}
    (known,) = (h for h in scene.workspace.journal.harvests().values() if h.key == first.key)
    with scene.sdk() as sdk:
        sdk.annotations.update(known.annotation_id, result=[])  # dated before what it changes
    message_of(scene.harvest)
    assert scene.workspace.journal.harvests()[first.key].annotations == ()
    for task in others:
        scene.label(task)
    assert scene.harvest()["new_boxes"] == BUDGET - 1


@contextmanager
def database(scene: Scene) -> Iterator[sqlite3.Connection]:
    """The database of the running server."""
    with closing(sqlite3.connect(scene.server.data_dir / "label_studio.sqlite3", timeout=30)) as db, db:
        yield db


def set_clock(scene: Scene, shift: str) -> None:
    """Shift all dates of the project, as a wrong clock would have."""
    project = scene.project
    shifted = "updated_at = strftime('%Y-%m-%d %H:%M:%f', updated_at, ?)"
    with database(scene) as db:
        db.execute(f"UPDATE task SET {shifted} WHERE project_id = ?", (shift, project))  # noqa: S608
        db.execute(f"UPDATE task_completion SET {shifted} WHERE project_id = ?", (shift, project))  # noqa: S608


def test_webhook_is_lost(scene: Scene) -> None:
    """Harvests do not depend on webhooks."""
    scene.open()
    now = "strftime('%Y-%m-%d %H:%M:%f')"
    row = f"'http://127.0.0.1:9/', 1, '{{}}', 1, {now}, {now}, 1, ?, 1"
    names = (
        "url, send_for_all_actions, headers, is_active, created_at, updated_at, organization_id, project_id"
    )
    project = scene.project
    with database(scene) as db:  # the API refuses loopback addresses
        db.execute(f"INSERT INTO webhook ({names}, send_payload) VALUES ({row})", (project,))  # noqa: S608
    scene.check_complete()
