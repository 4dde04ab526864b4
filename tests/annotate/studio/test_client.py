"""What only a real Label Studio can show: the order people meet, its silent drops, and images served."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from annotate.studio import task_format, task_import, views
from annotate.studio.api import Api
from annotate.studio.client import LabelStudio
from annotate.studio.controls import IMAGE_CHOICE, OBJECT, ImageChoice
from annotate.studio.convert import to_result
from annotate.studio.protocol import Connection, Region, Task
from annotate.studio.task_query import DATA, query_tasks
from dsmoe_core.errors import PrerequisiteError, StudioError
from dsmoe_core.schema import Box, Detection, ImageRecord, Outcome, Vocabulary

MakeImage = Callable[[str], ImageRecord]
MakeTask = Callable[..., Task]
MakeDetection = Callable[..., Detection]
real = pytest.mark.labelstudio


@pytest.fixture
def studio_kind() -> str:
    return "real"


def get(connection: Connection, path: str) -> httpx.Response:
    """As the page's own script asks; its client has no call for these."""
    return httpx.get(connection.url + path, headers={"Authorization": f"Token {connection.token}"})


@pytest.fixture
def real_studio(connection: Connection) -> LabelStudio:
    return LabelStudio(connection)


@real
def test_stream_and_view_serve_the_most_useful_first_with_or_without_pre_annotations(
    connection: Connection,
    real_studio: LabelStudio,
    title: str,
    vocabulary: Vocabulary,
    images: MakeImage,
    make_task: MakeTask,
    make_detection: MakeDetection,
) -> None:
    project = real_studio.ensure_project(title, vocabulary)
    tasks = [
        make_task(images(f"p{rank}"), make_detection((1, 1, 9, 9)), rank=rank, bare=rank % 2 == 0)
        for rank in (10, 2, 1, 0, 11)
    ]
    ids = real_studio.import_tasks(project, tasks)
    in_order = [ids[t.image.key] for t in sorted(tasks, key=lambda t: t.rank)]
    with Api(connection).client("show what it has") as sdk:
        (view,) = [v for v in sdk.views.list(project=project) if v.data["title"] == views.QUEUE]
        assert [task.id for task in sdk.tasks.list(view=view.id)] == in_order
    streamed = []
    for _ in tasks:
        task = task_format.open_task(get(connection, f"/api/projects/{project}/next").json())
        assert task is not None
        streamed.append(task.task_id)
        real_studio.submit(project, task, [], seconds=1.0)
    assert streamed == in_order
    real_studio.ensure_project(title, vocabulary)
    with Api(connection).client("show what it has") as sdk:
        assert sdk.projects.get(project).model_version == "model+book"
        tabs = {v.data["title"]: v.id for v in sdk.views.list(project=project)}
        assert tabs.keys() == views.FILTERS.keys()
        assert list(sdk.tasks.list(view=tabs[views.QUEUE])) == []  # all are done
        assert [task.id for task in sdk.tasks.list(view=tabs[views.EVERYTHING])] == in_order


@real
def test_a_class_in_unfinished_work_is_not_taken_away(
    connection: Connection,
    real_studio: LabelStudio,
    title: str,
    vocabulary: Vocabulary,
    images: MakeImage,
    make_task: MakeTask,
) -> None:
    project = real_studio.ensure_project(title, vocabulary)
    ids = real_studio.import_tasks(project, [make_task(images("a"), bare=True)])
    drawn = to_result(Region("r", Box(1.0, 1.0, 9.0, 9.0), "spur", "manual", None), 320, 200)
    api, (task,) = Api(connection), ids.values()
    api.request("keep a draft", "POST", f"api/tasks/{task}/drafts", body={"result": [drawn], "lead_time": 1})
    smaller = Vocabulary(vocabulary.classes[:2])
    with pytest.raises(StudioError, match=r"refused to change the classes .* \(400\).*spur"):
        real_studio.ensure_project(title, smaller)
    assert real_studio._read_classes(project) == frozenset(vocabulary.names)


@real
def test_each_tab_shows_what_it_says(
    connection: Connection,
    real_studio: LabelStudio,
    title: str,
    vocabulary: Vocabulary,
    images: MakeImage,
    make_task: MakeTask,
    make_detection: MakeDetection,
) -> None:
    project = real_studio.ensure_project(title, vocabulary)
    seed, blind, expert, consensus, agreed = (images(name) for name in ("s", "b", "e", "d", "a"))
    tasks = [make_task(seed, bare=True), make_task(blind, rank=1)]
    tasks[1] = replace(tasks[1], prediction=None)
    others = enumerate((expert, consensus, agreed), start=2)
    tasks += [make_task(p, make_detection((1, 1, 9, 9)), rank=rank) for rank, p in others]
    ids = real_studio.import_tasks(project, tasks)
    said = {"from_name": IMAGE_CHOICE, "to_name": OBJECT, "type": "choices", "id": "v"}
    with Api(connection).client("annotate") as sdk:
        choices = [{**said, "value": {"choices": [str(ImageChoice.NEEDS_EXPERT)]}}]
        sdk.annotations.create(ids[expert.key], result=choices)
        for image in (consensus, consensus, agreed):
            sdk.annotations.create(ids[image.key], result=[])
    agreement = {consensus.key: 0.5, agreed.key: 1.0, blind.key: 0.0}
    for _ in range(2):
        real_studio.set_agreement(project, agreement)
    shown = {}
    with Api(connection).client("show what it has") as sdk:
        for view in sdk.views.list(project=project):
            found = sdk.tasks.list(view=view.id)
            shown[view.data["title"]] = [key for task in found for key in ids if ids[key] == task.id]
    assert shown == {
        views.QUEUE: [seed.key, blind.key],
        views.DISAGREEMENTS: [consensus.key],  # nobody has answered the blind one yet
        views.NEEDS_EXPERT: [expert.key],
        views.BLIND_AUDIT: [blind.key],
        views.EVERYTHING: [p.key for p in (seed, blind, expert, consensus, agreed)],
    }


@real
def test_images_are_served_and_nothing_beside_them(
    connection: Connection,
    real_studio: LabelStudio,
    title: str,
    vocabulary: Vocabulary,
    images: MakeImage,
    make_task: MakeTask,
) -> None:
    project = real_studio.ensure_project(title, vocabulary)
    image = images("Ä & b%20")
    real_studio.import_tasks(project, [make_task(image, bare=True)])
    (row,) = query_tasks(real_studio._api, project, DATA)
    assert get(connection, row["data"]["image"]).content == image.path.read_bytes()
    for beside in ("studio/credentials.json", "images/../studio/credentials.json"):
        assert get(connection, f"/data/local-files/?d={beside}").status_code in (403, 404)


@real
def test_a_image_outside_the_document_root_is_refused(
    real_studio: LabelStudio, title: str, vocabulary: Vocabulary, make_task: MakeTask, tmp_path: Path
) -> None:
    project = real_studio.ensure_project(title, vocabulary)
    outside = ImageRecord("k", "k.png", tmp_path / "k.png", 320, 200)
    with pytest.raises(StudioError, match=r"k\.png does not lie in a sub-folder of"):
        real_studio.import_tasks(project, [make_task(outside, bare=True)])


@real
def test_pre_annotations_that_the_server_drops_are_noticed(
    monkeypatch: pytest.MonkeyPatch,
    real_studio: LabelStudio,
    title: str,
    vocabulary: Vocabulary,
    images: MakeImage,
    make_task: MakeTask,
    make_detection: MakeDetection,
) -> None:
    project = real_studio.ensure_project(title, vocabulary)
    image = images("a")
    real_studio.import_tasks(project, [make_task(image, bare=True)])
    task = make_task(image, make_detection((1, 1, 9, 9)))
    with monkeypatch.context() as past_our_checks:
        good = task_format.task_json

        def bad(*arguments: Any) -> dict[str, Any]:
            body = good(*arguments)
            body["predictions"][0]["score"] = 7.0  # Label Studio drops it without a word
            return body

        past_our_checks.setattr(task_format, "task_json", bad)
        with pytest.raises(StudioError, match="took 0 of 1 sets of pre-annotations"):
            real_studio.import_tasks(project, [task])
    real_studio.import_tasks(project, [task])
    assert len(real_studio.open_tasks(project)[0].pre_annotations) == 1


@real
def test_pre_annotations_that_an_import_drops_are_sent_after_it(
    monkeypatch: pytest.MonkeyPatch,
    real_studio: LabelStudio,
    title: str,
    vocabulary: Vocabulary,
    images: MakeImage,
    make_task: MakeTask,
    make_detection: MakeDetection,
) -> None:
    project = real_studio.ensure_project(title, vocabulary)
    ask = real_studio._api.request

    def without_predictions(what: str, method: str, path: str, **more: Any) -> Any:
        if path.endswith("/import"):
            more["body"] = [{**body, "predictions": []} for body in more["body"]]
        return ask(what, method, path, **more)

    monkeypatch.setattr(real_studio._api, "request", without_predictions)
    real_studio.import_tasks(project, [make_task(images("a"), make_detection((1, 1, 9, 9)))])
    (task,) = real_studio.open_tasks(project)
    assert len(task.pre_annotations) == 1


@real
def test_a_task_doubled_by_a_kill_is_removed_by_the_next_push(
    real_studio: LabelStudio,
    title: str,
    vocabulary: Vocabulary,
    images: MakeImage,
    make_task: MakeTask,
    make_detection: MakeDetection,
) -> None:
    project = real_studio.ensure_project(title, vocabulary)
    tasks = [make_task(images(n), make_detection((1, 1, 9, 9)), rank=i) for i, n in enumerate("ab")]
    sent = real_studio.import_tasks(project, tasks)
    root = real_studio.connection.document_root
    racing = task_import.TaskImport(real_studio._api, project, root, vocabulary.names, tasks)
    racing._check()
    (later_a, later_b) = racing._import([racing._body(t.image.key) for t in tasks])
    opened = {task.task_id: task for task in real_studio.open_tasks(project)}
    real_studio.submit(project, opened[later_b], [], seconds=1.0)  # someone was quick: that work counts
    assert real_studio.import_tasks(project, tasks) == {**sent, tasks[1].image.key: later_b}
    assert [task.task_id for task in real_studio.open_tasks(project)] == [sent[tasks[0].image.key]]
    assert later_a not in [row["id"] for row in query_tasks(real_studio._api, project, DATA)]
    assert [h.key for h in real_studio.harvest(project)] == [tasks[1].image.key]


@real
def test_an_annotation_changed_later_is_harvested_as_it_is_now(
    connection: Connection,
    real_studio: LabelStudio,
    title: str,
    vocabulary: Vocabulary,
    images: MakeImage,
    make_task: MakeTask,
    make_detection: MakeDetection,
) -> None:
    project = real_studio.ensure_project(title, vocabulary)
    real_studio.import_tasks(project, [make_task(images("a"), make_detection((10, 10, 90, 90)))])
    (task,) = real_studio.open_tasks(project)
    real_studio.submit(project, task, task.pre_annotations, seconds=1.0)
    (first,) = real_studio.harvest(project)
    with Api(connection).client("empty an annotation") as sdk:
        sdk.annotations.update(first.annotation_id, result=[])
    (second,) = real_studio.harvest(project, since=first.updated_at)
    assert (second.annotation_id, second.annotations) == (first.annotation_id, ())
    assert second.updated_at > first.updated_at
    assert second.outcomes[Outcome.DELETED] == 1


@real
def test_many_tasks_go_and_come_in_batches(
    monkeypatch: pytest.MonkeyPatch,
    real_studio: LabelStudio,
    title: str,
    vocabulary: Vocabulary,
    images: MakeImage,
    make_task: MakeTask,
    make_detection: MakeDetection,
) -> None:
    monkeypatch.setattr(task_import, "BATCH", 100)
    project = real_studio.ensure_project(title, vocabulary)
    one = images("one")
    many = [ImageRecord(f"{one.key}-{i}", one.name, one.path, one.width, one.height) for i in range(230)]
    done: list[tuple[int, int]] = []
    ids = real_studio.import_tasks(
        project,
        [make_task(p, make_detection((1, 1, 9, 9)), rank=i) for i, p in enumerate(many)],
        progress=lambda n, of: done.append((n, of)),
    )
    assert done == [(0, 230), (100, 230), (200, 230), (230, 230)]
    assert [t.task_id for t in real_studio.open_tasks(project)] == [ids[p.key] for p in many]


@real
def test_a_token_that_is_not_accepted_is_named_and_not_shown(connection: Connection) -> None:
    wrong = Connection(connection.url, "u", "p", "0" * 40, connection.document_root)
    with pytest.raises(StudioError, match="does not accept our token") as caught:
        LabelStudio(wrong).open_tasks(1)
    assert "0" * 40 not in str(caught.value)


def test_a_server_that_is_gone_is_named(free_port: Callable[[], int], tmp_path: Path) -> None:
    gone = Connection(f"http://127.0.0.1:{free_port()}", "u", "p", "t" * 40, tmp_path)
    with pytest.raises(StudioError, match=r"cannot be reached \(ConnectError\)\. Start it"):
        LabelStudio(gone).open_tasks(1)


def test_the_client_missing_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "label_studio_sdk", None)
    with (
        pytest.raises(PrerequisiteError, match=r"label_studio_sdk is not installed.*dsmoe\[annotate\]"),
        answering(monkeypatch, httpx.Response(200)).client("look at project 7"),
    ):
        pytest.fail("it went on without its client")


def answering(monkeypatch: pytest.MonkeyPatch, answer: httpx.Response | Exception) -> Api:
    """An Api whose server gives this answer to everything."""

    def handle(_: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    api = Api(Connection("http://127.0.0.1:1", "u", "password-x", "token-y", Path("/")))
    monkeypatch.setattr(api, "_http", httpx.Client(transport=httpx.MockTransport(handle)))
    return api


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.ReadTimeout("slow"), "was asked to look at project 7 and did not answer in time"),
        (httpx.ConnectError("refused"), r"cannot be reached \(ConnectError\)"),
        (httpx.Response(200, text="<html>"), "something that cannot be read"),
        (httpx.Response(500, text="token-y and password-x"), r"look at project 7 \(500\): \*\*\* and \*\*\*"),
        (httpx.Response(404, json={"detail": "x"}, headers={"Set-Cookie": "sessionid=z-1"}), r"\(404\): x\."),
        (
            httpx.Response(400, json={"detail": "Validation error", "validation_errors": {"x": ["bad"]}}),
            "bad",
        ),
    ],
)
def test_every_fault_is_one_line_without_secrets(
    monkeypatch: pytest.MonkeyPatch, answer: httpx.Response | Exception, said: str
) -> None:
    with (
        pytest.raises(StudioError, match=said) as caught,
        answering(monkeypatch, answer).client("look at project 7") as sdk,
    ):
        sdk.projects.get(7)
    assert "\n" not in str(caught.value)
    shown = "".join(traceback.format_exception(caught.value))
    assert not [secret for secret in ("token-y", "sessionid", "z-1") if secret in shown]


def test_a_repeat_that_the_server_has_already_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    def handle(_: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        return httpx.Response(409, json={})

    api = answering(monkeypatch, httpx.Response(200))
    monkeypatch.setattr(api, "_http", httpx.Client(transport=httpx.MockTransport(handle)))
    with api.client("take this", once=True) as sdk:
        sdk.annotations.create(7, result=[])
    with pytest.raises(StudioError, match=r"\(409\)"), api.client("take this") as sdk:
        sdk.annotations.create(7, result=[])
    assert asked == 2  # the client itself would ask thrice before it believed the server
