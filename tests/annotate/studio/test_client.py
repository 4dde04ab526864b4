"""Tests of the real client: order of tasks, predictions dropped by the server, images and error messages."""

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
    """GET request that the SDK does not offer."""
    return httpx.get(connection.url + path, headers={"Authorization": f"Token {connection.token}"})


@pytest.fixture
def real_studio(connection: Connection) -> LabelStudio:
    return LabelStudio(connection)


@real
def test_label_stream_and_view_have_the_same_order(
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
    with Api(connection).client("list views") as sdk:
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
    with Api(connection).client("list views") as sdk:
        assert sdk.projects.get(project).model_version == "model+book"
        tabs = {v.data["title"]: v.id for v in sdk.views.list(project=project)}
        assert tabs.keys() == views.FILTERS.keys()
        assert list(sdk.tasks.list(view=tabs[views.QUEUE])) == []  # all are annotated
        assert [task.id for task in sdk.tasks.list(view=tabs[views.ALL_TASKS])] == in_order


@real
def test_class_in_a_draft_is_not_removed(
    connection: Connection,
    real_studio: LabelStudio,
    title: str,
    vocabulary: Vocabulary,
    images: MakeImage,
    make_task: MakeTask,
) -> None:
    project = real_studio.ensure_project(title, vocabulary)
    ids = real_studio.import_tasks(project, [make_task(images("a"), bare=True)])
    result = to_result(Region("r", Box(1.0, 1.0, 9.0, 9.0), "spur", "manual", None), 320, 200)
    api, (task,) = Api(connection), ids.values()
    api.request(
        "store a draft", "POST", f"api/tasks/{task}/drafts", body={"result": [result], "lead_time": 1}
    )
    smaller = Vocabulary(vocabulary.classes[:2])
    with pytest.raises(StudioError, match=r"\(400\).*spur"):
        real_studio.ensure_project(title, smaller)
    assert real_studio._read_classes(project) == frozenset(vocabulary.names)


@real
def test_views_show_the_tasks_of_their_filter(
    connection: Connection,
    real_studio: LabelStudio,
    title: str,
    vocabulary: Vocabulary,
    images: MakeImage,
    make_task: MakeTask,
    make_detection: MakeDetection,
) -> None:
    project = real_studio.ensure_project(title, vocabulary)
    seed, blind, expert, disputed, agreed = (images(name) for name in ("s", "b", "e", "d", "a"))
    tasks = [make_task(seed, bare=True), make_task(blind, rank=1)]
    tasks[1] = replace(tasks[1], prediction=None)
    others = enumerate((expert, disputed, agreed), start=2)
    tasks += [make_task(p, make_detection((1, 1, 9, 9)), rank=rank) for rank, p in others]
    ids = real_studio.import_tasks(project, tasks)
    choice = {"from_name": IMAGE_CHOICE, "to_name": OBJECT, "type": "choices", "id": "v"}
    with Api(connection).client("annotate") as sdk:
        choices = [{**choice, "value": {"choices": [str(ImageChoice.NEEDS_EXPERT)]}}]
        sdk.annotations.create(ids[expert.key], result=choices)
        for image in (disputed, disputed, agreed):
            sdk.annotations.create(ids[image.key], result=[])
    agreement = {disputed.key: 0.5, agreed.key: 1.0, blind.key: 0.0}
    for _ in range(2):
        real_studio.set_agreement(project, agreement)
        assert real_studio.set_label_errors(project, {expert.key: 0.7, blind.key: 0.9}) == 1
    tasks_by_view = {}
    with Api(connection).client("list views") as sdk:
        for view in sdk.views.list(project=project):
            listed = sdk.tasks.list(view=view.id)
            tasks_by_view[view.data["title"]] = [key for task in listed for key in ids if ids[key] == task.id]
    assert tasks_by_view == {
        views.QUEUE: [seed.key, blind.key],
        views.DISAGREEMENTS: [disputed.key],  # the blind one has no annotation yet
        views.NEEDS_EXPERT: [expert.key],
        views.LABEL_ERRORS: [expert.key],
        views.BLIND_AUDIT: [blind.key],
        views.ALL_TASKS: [p.key for p in (seed, blind, expert, disputed, agreed)],
    }


@real
def test_images_are_served_and_other_files_are_not(
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
    (task,) = query_tasks(real_studio._api, project, DATA)
    assert get(connection, task["data"]["image"]).content == image.path.read_bytes()
    for path in ("studio/credentials.json", "images/../studio/credentials.json"):
        assert get(connection, f"/data/local-files/?d={path}").status_code in (403, 404)


@real
def test_image_outside_the_document_root_is_refused(
    real_studio: LabelStudio, title: str, vocabulary: Vocabulary, make_task: MakeTask, tmp_path: Path
) -> None:
    project = real_studio.ensure_project(title, vocabulary)
    outside = ImageRecord("k", "k.png", tmp_path / "k.png", 320, 200)
    with pytest.raises(StudioError, match=r"k\.png"):
        real_studio.import_tasks(project, [make_task(outside, bare=True)])


@real
def test_predictions_dropped_by_the_server_are_reported(
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
    with monkeypatch.context() as patch:
        valid = task_format.task_json

        def invalid(*arguments: Any) -> dict[str, Any]:
            body = valid(*arguments)
            body["predictions"][0]["score"] = 7.0  # Label Studio drops it silently
            return body

        patch.setattr(task_format, "task_json", invalid)
        with pytest.raises(StudioError, match="0 of 1"):
            real_studio.import_tasks(project, [task])
    real_studio.import_tasks(project, [task])
    assert len(real_studio.open_tasks(project)[0].pre_annotations) == 1


@real
def test_predictions_dropped_by_an_import_are_sent_again(
    monkeypatch: pytest.MonkeyPatch,
    real_studio: LabelStudio,
    title: str,
    vocabulary: Vocabulary,
    images: MakeImage,
    make_task: MakeTask,
    make_detection: MakeDetection,
) -> None:
    project = real_studio.ensure_project(title, vocabulary)
    request = real_studio._api.request

    def without_predictions(action: str, method: str, path: str, **more: Any) -> Any:
        if path.endswith("/import"):
            more["body"] = [{**body, "predictions": []} for body in more["body"]]
        return request(action, method, path, **more)

    monkeypatch.setattr(real_studio._api, "request", without_predictions)
    real_studio.import_tasks(project, [make_task(images("a"), make_detection((1, 1, 9, 9)))])
    (task,) = real_studio.open_tasks(project)
    assert len(task.pre_annotations) == 1


@real
def test_duplicate_task_of_an_interrupted_import_is_deleted_by_the_next(
    real_studio: LabelStudio,
    title: str,
    vocabulary: Vocabulary,
    images: MakeImage,
    make_task: MakeTask,
    make_detection: MakeDetection,
) -> None:
    project = real_studio.ensure_project(title, vocabulary)
    tasks = [make_task(images(n), make_detection((1, 1, 9, 9)), rank=i) for i, n in enumerate("ab")]
    ids = real_studio.import_tasks(project, tasks)
    root = real_studio.connection.document_root
    concurrent = task_import.TaskImport(real_studio._api, project, root, vocabulary.names, tasks)
    concurrent._validate()
    (later_a, later_b) = concurrent._create([concurrent._body(t.image.key) for t in tasks])
    opened = {task.task_id: task for task in real_studio.open_tasks(project)}
    real_studio.submit(project, opened[later_b], [], seconds=1.0)  # the annotated duplicate is kept
    assert real_studio.import_tasks(project, tasks) == {**ids, tasks[1].image.key: later_b}
    assert [task.task_id for task in real_studio.open_tasks(project)] == [ids[tasks[0].image.key]]
    assert later_a not in [row["id"] for row in query_tasks(real_studio._api, project, DATA)]
    assert [h.key for h in real_studio.harvest(project)] == [tasks[1].image.key]


@real
def test_changed_annotation_is_harvested_again(
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
    with Api(connection).client("clear an annotation") as sdk:
        sdk.annotations.update(first.annotation_id, result=[])
    (second,) = real_studio.harvest(project, since=first.updated_at)
    assert (second.annotation_id, second.annotations) == (first.annotation_id, ())
    assert second.updated_at > first.updated_at
    assert second.outcomes[Outcome.DELETED] == 1


@real
def test_tasks_are_imported_and_listed_in_batches(
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
    image = images("one")
    many = [replace(image, key=f"{image.key}-{i}") for i in range(230)]
    steps: list[tuple[int, int]] = []
    ids = real_studio.import_tasks(
        project,
        [make_task(p, make_detection((1, 1, 9, 9)), rank=i) for i, p in enumerate(many)],
        progress=lambda done, total: steps.append((done, total)),
    )
    assert steps == [(0, 230), (100, 230), (200, 230), (230, 230)]
    assert [t.task_id for t in real_studio.open_tasks(project)] == [ids[p.key] for p in many]


@real
def test_invalid_token_is_refused_and_not_shown(connection: Connection) -> None:
    wrong = Connection(connection.url, "u", "p", "0" * 40, connection.document_root)
    with pytest.raises(StudioError, match=connection.url) as caught:
        LabelStudio(wrong).open_tasks(1)
    assert "0" * 40 not in str(caught.value)


def test_stopped_server_is_reported(free_port: Callable[[], int], tmp_path: Path) -> None:
    stopped = Connection(f"http://127.0.0.1:{free_port()}", "u", "p", "t" * 40, tmp_path)
    with pytest.raises(StudioError, match="ConnectError"):
        LabelStudio(stopped).open_tasks(1)


def test_missing_sdk_is_reported_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "label_studio_sdk", None)
    with (
        pytest.raises(PrerequisiteError, match=r"label_studio_sdk.*dsmoe\[annotate\]"),
        api_with(monkeypatch, httpx.Response(200)).client("open project 7"),
    ):
        pytest.fail("the SDK is missing")


def api_with(monkeypatch: pytest.MonkeyPatch, response: httpx.Response | Exception) -> Api:
    """An Api whose server gives this response to every request."""

    def handle(_: httpx.Request) -> httpx.Response:
        if isinstance(response, Exception):
            raise response
        return response

    api = Api(Connection("http://127.0.0.1:1", "u", "password-x", "token-y", Path("/")))
    monkeypatch.setattr(api, "_http", httpx.Client(transport=httpx.MockTransport(handle)))
    return api


@pytest.mark.parametrize(
    ("response", "text"),
    [
        (httpx.ReadTimeout("slow"), "open project 7"),
        (httpx.ConnectError("refused"), "ConnectError"),
        (httpx.Response(200, text="<html>"), "open project 7"),
        (httpx.Response(500, text="token-y and password-x"), r"open project 7 \(500\): \*\*\* and \*\*\*"),
        (httpx.Response(404, json={"detail": "x"}, headers={"Set-Cookie": "sessionid=z-1"}), r"\(404\): x\."),
        (
            httpx.Response(400, json={"detail": "Validation error", "validation_errors": {"x": ["bad"]}}),
            "bad",
        ),
    ],
)
def test_error_is_one_line_without_secrets(
    monkeypatch: pytest.MonkeyPatch, response: httpx.Response | Exception, text: str
) -> None:
    with (
        pytest.raises(StudioError, match=text) as caught,
        api_with(monkeypatch, response).client("open project 7") as sdk,
    ):
        sdk.projects.get(7)
    assert "\n" not in str(caught.value)
    trace = "".join(traceback.format_exception(caught.value))
    assert not [secret for secret in ("token-y", "sessionid", "z-1") if secret in trace]


def test_conflict_can_be_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = 0

    def handle(_: httpx.Request) -> httpx.Response:
        nonlocal requests
        requests += 1
        return httpx.Response(409, json={})

    api = api_with(monkeypatch, httpx.Response(200))
    monkeypatch.setattr(api, "_http", httpx.Client(transport=httpx.MockTransport(handle)))
    with api.client("store this", ignore_conflict=True) as sdk:
        sdk.annotations.create(7, result=[])
    with pytest.raises(StudioError, match=r"\(409\)"), api.client("store this") as sdk:
        sdk.annotations.create(7, result=[])
    assert requests == 2  # no retries
