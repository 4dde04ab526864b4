"""What goes wrong between us and Label Studio: made on a real server; nothing is lost or doubled.

The table of docs/label-studio-faults.md is this one: a message that changes here is changed there.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
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
from dsmoe_core.schema import Box, Detection, ImageRecord, Prediction, Routing
from pipelines.detectors.stub_detector import StubDetector
from pipelines.progress import SilentProgress
from pipelines.rounds import loop
from pipelines.rounds.context import LoopContext
from pipelines.rounds.retraining import harvest
from pipelines.workspace.workspace import Workspace

pytestmark = [pytest.mark.labelstudio, pytest.mark.timeout(600)]
BUDGET = 7
DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "label-studio-faults.md"


class InterruptingProgress(SilentProgress):
    """Calls ``at_push`` when the push has come half way."""

    def __init__(self) -> None:
        self.at_push: Callable[[], None] | None = None

    def advance(self, done: int, total: int, note: str = "") -> None:
        if self.at_push is not None and done >= total // 2:
            happens, self.at_push = self.at_push, None
            happens()


@dataclass
class Scene:
    """A workspace with an opened or unopened round, at a real server."""

    workspace: Workspace
    server: LabelStudioServer
    connection: Connection
    progress: InterruptingProgress

    def context(self, timeout: float = 60.0, token: str | None = None) -> LoopContext:
        """Everybody, as a fresh process would find them."""
        at = replace(self.connection, token=token) if token else self.connection
        studio = LabelStudio(at, timeout=timeout)
        return LoopContext(self.workspace, studio, StubDetector(), self.progress)

    @property
    def project(self) -> int:
        return self.context().project()

    def open(self, **how: Any) -> None:
        loop.open_round(self.context(**how))

    def open_tasks(self) -> list[OpenTask]:
        return self.context().studio.open_tasks(self.project)

    def label(self, task: OpenTask) -> None:
        box = Region(uuid.uuid4().hex[:10], Box(5.0, 5.0, 40.0, 40.0), self.classes[0], "manual", None)
        self.context().studio.submit(self.project, task, [box], seconds=2.0)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.workspace.class_book().vocabulary().names

    def take_in(self) -> dict[str, Any]:
        """Harvest the round as `dsmoe round close` does, and say what is counted."""
        counts: dict[str, Any] = harvest(self.context(), 0, False)["counts"]
        return counts

    def sdk(self, what: str = "do what the test asks") -> Any:
        return Api(self.connection).client(what)

    def signal(self, sign: signal.Signals) -> None:
        pid = self.server.status().pid
        assert pid is not None
        os.killpg(pid, sign)
        while sign is signal.SIGKILL and Api.is_up(self.connection.url):
            time.sleep(0.05)  # it takes a moment to be gone

    def whole(self) -> None:
        """Every image of the round is there once, and once everybody has answered, all of it comes back."""
        keys = [row["data"]["key"] for row in self.rows()]
        assert Counter(keys) == Counter(task.key for task in self.workspace.journal.tasks(0))
        assert len(keys) == BUDGET
        for task in self.open_tasks():
            self.label(task)
        counts = self.take_in()
        assert (counts["answered"], counts["new_boxes"], counts["added"]) == (BUDGET, BUDGET, BUDGET)

    def rows(self) -> list[dict[str, Any]]:
        asked = httpx.get(
            f"{self.connection.url}/api/tasks/",
            headers={"Authorization": f"Token {self.connection.token}"},
            params={"project": self.project, "fields": "all", "page_size": 1000},
        )
        rows: list[dict[str, Any]] = asked.json()["tasks"]
        return rows


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, environments: Path) -> Iterator[LabelStudioServer]:
    """One server for all faults; it may show whatever workspace a test makes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    made = LabelStudioServer(
        tmp_path_factory.mktemp("studio"), tmp_path_factory.getbasetemp(), environments, port
    )
    made.start()
    yield made
    made.stop()


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


def said(work: Callable[[], Any]) -> str:
    """The message of a fault."""
    with pytest.raises(DsmoeError) as caught:
        work()
    text = str(caught.value)
    assert "\n" not in text
    return text


def documented(text: str, *names: str) -> None:
    """The message stands in the table of faults, but for names and numbers that differ from run to run."""
    for name in names:
        text = re.sub(rf"\b{re.escape(name)}\b", "…", text)
    assert f"| {text} |" in DOCUMENT.read_text(encoding="utf-8"), text


def test_the_server_dies_in_the_middle_of_a_push(scene: Scene) -> None:
    scene.progress.at_push = lambda: scene.signal(signal.SIGKILL)
    documented(said(scene.open), scene.connection.url)
    scene.server.start()
    assert 0 < len(scene.rows()) < BUDGET
    scene.open()
    scene.whole()


def test_the_server_hangs_in_the_middle_of_a_push(scene: Scene) -> None:
    scene.progress.at_push = lambda: scene.signal(signal.SIGSTOP)
    message = said(lambda: scene.open(timeout=3.0))
    scene.signal(signal.SIGCONT)
    documented(message, scene.connection.url, str(scene.project))
    scene.open()  # while the server still works on what it was sent before
    scene.open()
    scene.whole()


@pytest.fixture
def personal_token(scene: Scene) -> Iterator[str]:
    token = scene_post(scene, "/api/token/").json()["token"]
    yield token
    scene_post(scene, "/api/token/blacklist/", refresh=token)  # there may be one at a time only


def scene_post(scene: Scene, path: str, **body: Any) -> httpx.Response:
    headers = {"Authorization": f"Token {scene.connection.token}"}
    return httpx.post(scene.connection.url + path, headers=headers, json=body)


def test_the_token_is_revoked_in_the_middle_of_a_push(scene: Scene, personal_token: str) -> None:
    def revoke() -> None:
        scene_post(scene, "/api/token/blacklist/", refresh=personal_token)

    scene.progress.at_push = revoke
    scene.open(token=personal_token)  # what was swapped for it is good for five minutes
    documented(said(lambda: scene.open(token=personal_token)), scene.connection.url)
    scene.whole()


def test_a_task_is_deleted(scene: Scene) -> None:
    scene.open()
    first, second, *_ = scene.open_tasks()
    scene.label(second)
    with scene.sdk() as sdk:
        sdk.tasks.delete(str(first.task_id))
    documented(said(lambda: scene.label(first)), str(first.task_id))
    for task in scene.open_tasks():
        scene.label(task)
    documented(said(scene.take_in))
    scene.open()
    assert [task.key for task in scene.open_tasks()] == [first.key]
    scene.whole()


def test_a_task_is_deleted_and_its_round_is_closed_without_it(scene: Scene) -> None:
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
    again = {task.key for task in scene.open_tasks()}
    assert second.key in again  # it is still there, with newer pre-annotations
    assert first.key not in again


def test_the_project_is_deleted(scene: Scene) -> None:
    scene.open()
    context, project = scene.context(), scene.project
    done, *_ = scene.open_tasks()
    scene.label(done)
    said(scene.take_in)  # six are out; the seventh is in the journal
    with scene.sdk() as sdk:
        sdk.projects.delete(project)
    documented(said(lambda: context.studio.open_tasks(project)), str(project))
    assert scene.workspace.journal.harvests().keys() == {done.key}
    scene.open()
    assert len(scene.open_tasks()) == BUDGET - 1  # nobody labels the seventh again
    for task in scene.open_tasks():
        scene.label(task)
    assert scene.take_in()["new_boxes"] == BUDGET


def test_another_workspace_has_a_project_of_this_title(scene: Scene) -> None:
    settings, book = scene.workspace.settings, scene.workspace.class_book()
    scene.context().studio.ensure_project(settings.title, book.vocabulary(), owner="1f0c9a2e")
    documented(said(scene.open), settings.title, "1f0c9a2e", scene.workspace.unique_id())
    scene.workspace.settings = settings.model_copy(update={"title": f"{settings.title} b"})
    scene.open()
    scene.whole()


def test_a_label_is_renamed_on_the_server(scene: Scene) -> None:
    scene.open()
    project, vocabulary = scene.project, scene.workspace.class_book().vocabulary()
    there = label_config(vocabulary)
    renamed = there.replace('value="brick"', 'value="Backstein"')
    assert renamed != there
    first, *_ = scene.open_tasks()
    region = Region("hand", Box(5.0, 5.0, 40.0, 40.0), "Backstein", "manual", None)
    result = to_result(region, first.width, first.height)
    with scene.sdk() as sdk:
        sdk.projects.update(project, label_config=renamed)
        made = sdk.annotations.create(first.task_id, result=[result])
    documented(said(scene.take_in))
    with scene.sdk() as sdk:
        result["value"]["rectanglelabels"] = ["brick"]
        sdk.annotations.update(made.id, result=[result])
    scene.whole()
    with scene.sdk() as sdk:  # nobody uses it: it is put right without a word
        assert "Backstein" not in sdk.projects.get(project).label_config
        sdk.projects.update(project, label_config=renamed)
    scene.take_in()
    with scene.sdk() as sdk:
        assert "Backstein" not in sdk.projects.get(project).label_config


def test_a_bulk_import_is_repeated(scene: Scene) -> None:
    scene.open()
    again = [{"data": row["data"]} for row in scene.rows()]
    with scene.sdk() as sdk:
        sdk.projects.import_tasks(scene.project, request=again)
    assert len(scene.rows()) == 2 * BUDGET
    scene.open()
    scene.whole()


def test_one_bad_box_in_a_thousand(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    studio, project = scene.context().studio, scene.project
    (image, *_) = scene.workspace.images("pool")

    def task(i: int, corner: float = 30.0, label: str = scene.classes[0]) -> Task:
        found = Detection(Box(5.0, 5.0, corner, 30.0), label, 0.5, {label: 0.5}, entropy=0.1)
        detections = Prediction(f"k{i}", (found,), Routing((0,), (1.0,), 0.0), 0.4, "m+b")
        named = ImageRecord(f"k{i}", f"{i}.png", image.path, image.width, image.height)
        return Task(named, 0, "ranked", i, detections)

    good = [task(i) for i in range(1000)]
    documented(said(lambda: studio.import_tasks(project, [*good[:500], task(500, 9000.0), *good[501:]])))
    documented(
        said(lambda: studio.import_tasks(project, [*good[:500], task(500, label="crack"), *good[501:]]))
    )
    assert scene.rows() == []
    studio.import_tasks(project, good)
    assert Counter(len(t.pre_annotations) for t in studio.open_tasks(project)) == {1: 1000}


def test_the_server_drops_one_in_a_thousand(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past our own checks, as a bug of ours would: Label Studio says nothing, so we count."""
    scene.open()
    real = task_format.task_json

    def spoilt(task: Task, *more: Any) -> dict[str, Any]:
        body = real(task, *more)
        body["predictions"] = [{"model_version": "m+b", "score": 7.0, "result": []}]
        return body

    monkeypatch.setattr(task_format, "task_json", spoilt)
    documented(said(scene.open))
    monkeypatch.undo()
    scene.whole()


def test_the_servers_clock_is_put_back(scene: Scene) -> None:
    scene.open()
    first, second, *others = scene.open_tasks()
    scene.label(first)
    set_clock(scene, "+2 days")  # it was stamped in the future; now the clock is put right
    said(scene.take_in)
    assert scene.workspace.journal.harvests().keys() == {first.key}
    scene.label(second)
    said(scene.take_in)
    assert scene.workspace.journal.harvests().keys() == {first.key, second.key}
    (known,) = (h for h in scene.workspace.journal.harvests().values() if h.key == first.key)
    with scene.sdk() as sdk:
        sdk.annotations.update(known.annotation_id, result=[])  # dated before what it changes
    said(scene.take_in)
    assert scene.workspace.journal.harvests()[first.key].annotations == ()
    for task in others:
        scene.label(task)
    assert scene.take_in()["new_boxes"] == BUDGET - 1


@contextmanager
def database(scene: Scene) -> Iterator[sqlite3.Connection]:
    """The server's own database, while it runs."""
    with closing(sqlite3.connect(scene.server.data_dir / "label_studio.sqlite3", timeout=30)) as db, db:
        yield db


def set_clock(scene: Scene, shift: str) -> None:
    """Date everything in the project as a clock that is wrong by so much would have."""
    project = scene.project
    moved = "updated_at = strftime('%Y-%m-%d %H:%M:%f', updated_at, ?)"
    with database(scene) as db:
        db.execute(f"UPDATE task SET {moved} WHERE project_id = ?", (shift, project))  # noqa: S608
        db.execute(f"UPDATE task_completion SET {moved} WHERE project_id = ?", (shift, project))  # noqa: S608


def test_a_webhook_is_lost(scene: Scene) -> None:
    """We ask, and do not wait to be told: a webhook that reaches nobody changes nothing."""
    scene.open()
    now = "strftime('%Y-%m-%d %H:%M:%f')"
    row = f"'http://127.0.0.1:9/', 1, '{{}}', 1, {now}, {now}, 1, ?, 1"
    names = (
        "url, send_for_all_actions, headers, is_active, created_at, updated_at, organization_id, project_id"
    )
    project = scene.project
    with database(scene) as db:  # its own call refuses loopback
        db.execute(f"INSERT INTO webhook ({names}, send_payload) VALUES ({row})", (project,))  # noqa: S608
    scene.whole()
