"""What people do besides submitting once, on the fake and the real one: several, doubts, changes of mind."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Protocol

import pytest

from annotate.studio.api import Api
from annotate.studio.controls import IMAGE_CHOICE, NOTE, OBJECT, ImageChoice
from annotate.studio.convert import to_result
from annotate.studio.fake import FakeStudio
from annotate.studio.protocol import Connection, Consensus, Region, Studio, Task
from dsmoe_core.schema import Box, Harvest, ImageRecord, Vocabulary

Json = dict[str, Any]


class People(Protocol):
    """What people do on the page, whatever the server; annotators are called 0 and 1."""

    def annotate(self, task_id: int, who: int, body: Json) -> int: ...
    def change(self, annotation_id: int, body: Json) -> None: ...
    def take_back(self, annotation_id: int) -> None: ...


class FakePeople:
    def __init__(self, studio: FakeStudio) -> None:
        self._studio = studio

    def annotate(self, task_id: int, who: int, body: Json) -> int:
        return self._studio.annotate(task_id, {**body, "completed_by": who})

    def change(self, annotation_id: int, body: Json) -> None:
        self._studio.change(annotation_id, **body)

    def take_back(self, annotation_id: int) -> None:
        self._studio.take_back(annotation_id)


class RealPeople:
    def __init__(self, connection: Connection) -> None:
        self._api = Api(connection)
        with self._api.client("make another user") as sdk:
            email = f"{uuid.uuid4().hex[:8]}@dsmoe.local"
            self._users = [sdk.users.whoami().id, sdk.users.create(email=email, username=email).id]

    def annotate(self, task_id: int, who: int, body: Json) -> int:
        with self._api.client("annotate") as sdk:
            made = sdk.annotations.create(task_id, completed_by=self._users[who], **body)
        return int(made.id)

    def change(self, annotation_id: int, body: Json) -> None:
        with self._api.client("change an annotation") as sdk:
            sdk.annotations.update(annotation_id, **body)

    def take_back(self, annotation_id: int) -> None:
        with self._api.client("delete an annotation") as sdk:
            sdk.annotations.delete(annotation_id)


@pytest.fixture
def people(studio: Studio, studio_kind: str, request: pytest.FixtureRequest) -> People:
    if isinstance(studio, FakeStudio):
        return FakePeople(studio)
    assert studio_kind == "real"
    return RealPeople(request.getfixturevalue("connection"))


@pytest.fixture
def project(studio: Studio, title: str, vocabulary: Vocabulary) -> int:
    return studio.ensure_project(title, vocabulary)


@pytest.fixture
def task_id(
    studio: Studio,
    project: int,
    images: Callable[[str], ImageRecord],
    make_task: Callable[..., Task],
    make_detection: Callable[..., Any],
) -> int:
    """A task with one pre-annotation, an open at (10, 10, 50, 50)."""
    studio.import_tasks(project, [make_task(images("a"), make_detection((10, 10, 50, 50)))])
    return studio.open_tasks(project)[0].task_id


def drawn(x: float, label: str = "open") -> Region:
    return Region(uuid.uuid4().hex[:10], Box(x, 10.0, x + 40, 50.0), label, "manual", None)


def body(*regions: Region, verdict: ImageChoice | None = None, note: str = "", **more: Any) -> Json:
    """What the page posts."""
    result = [to_result(region, 320, 200) for region in regions]
    if verdict is not None:
        result.append(_said("choices", IMAGE_CHOICE, {"choices": [str(verdict)]}))
    if note:
        result.append(_said("textarea", NOTE, {"text": [note]}))
    return {"result": result, "lead_time": 4.0, "was_cancelled": False, **more}


def _said(kind: str, control: str, value: Json) -> Json:
    identity = uuid.uuid4().hex[:10]
    return {"id": identity, "type": kind, "from_name": control, "to_name": OBJECT, "value": value}


def one(
    studio: Studio, project: int, consensus: Consensus = "latest", since: datetime | None = None
) -> Harvest:
    (harvest,) = studio.harvest(project, since=since, consensus=consensus)
    return harvest


def test_two_annotators_agree_on_one_box_and_each_has_one_more(
    studio: Studio, people: People, project: int, task_id: int
) -> None:
    people.annotate(task_id, 0, body(drawn(10), drawn(100)))
    people.annotate(task_id, 1, body(drawn(12), drawn(200, "spur")))
    boxes = {
        consensus: sorted((round(a.box.x1, 3), a.label) for a in one(studio, project, consensus).annotations)
        for consensus in ("latest", "majority", "union")
    }
    assert boxes == {
        "latest": [(12.0, "open"), (200.0, "spur")],
        "majority": [(11.0, "open")],
        "union": [(11.0, "open"), (100.0, "open"), (200.0, "spur")],
    }
    got = one(studio, project, "majority")
    assert (got.annotators, got.agreement, got.seconds) == (2, 0.5, 8.0)


def test_ground_truth_outweighs_a_later_annotation(
    studio: Studio, people: People, project: int, task_id: int
) -> None:
    first = people.annotate(task_id, 0, body(drawn(100), ground_truth=True))
    people.annotate(task_id, 1, body(drawn(10), drawn(200)))
    for consensus in ("latest", "majority", "union"):
        got = one(studio, project, consensus)
        assert [a.box.x1 for a in got.annotations] == [pytest.approx(100)]
        assert got.annotation_id == first
    before = one(studio, project).updated_at
    people.change(first, {"ground_truth": False})
    got = one(studio, project, "union", since=before)
    assert len(got.annotations) == 3
    assert got.updated_at > before


def test_the_same_person_twice_is_one_annotator(
    studio: Studio, people: People, project: int, task_id: int
) -> None:
    people.annotate(task_id, 0, body(drawn(10)))
    people.annotate(task_id, 0, body(drawn(200)))
    got = one(studio, project, "union")
    assert [a.box.x1 for a in got.annotations] == [pytest.approx(200)]
    assert (got.annotators, got.agreement) == (1, None)


@pytest.mark.parametrize("verdict", [ImageChoice.UNSURE, ImageChoice.NEEDS_EXPERT])
def test_a_doubt_is_no_label_until_it_is_lifted(
    studio: Studio, people: People, project: int, task_id: int, verdict: ImageChoice
) -> None:
    identity = people.annotate(task_id, 0, body(drawn(10), verdict=verdict, note="scratch or spur?"))
    got = one(studio, project)
    assert (got.doubt, got.note, got.labelled, len(got.annotations)) == (
        str(verdict),
        "scratch or spur?",
        False,
        1,
    )
    people.change(identity, body(drawn(10, "spur"), note="a spur"))
    got = one(studio, project, since=got.updated_at)
    assert (got.doubt, got.note, got.labelled) == (None, "a spur", True)


def test_no_defect_is_a_label_and_contradicted_by_a_box_a_doubt(
    studio: Studio, people: People, project: int, task_id: int
) -> None:
    identity = people.annotate(task_id, 0, body(verdict=ImageChoice.NO_DEFECT))
    got = one(studio, project)
    assert (got.labelled, got.annotations, got.doubt) == (True, (), None)
    people.change(identity, body(drawn(10), verdict=ImageChoice.NO_DEFECT))
    got = one(studio, project)
    assert (got.labelled, got.doubt) == (False, "unsure")
    assert got.note == '(says "no defect", and has 1 boxes)'


def test_what_another_program_wrote_and_cannot_be_read_is_left_out(
    studio: Studio, people: People, project: int, task_id: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The server asks only that an annotation's regions are a list."""
    odd = body(drawn(10), drawn(100), drawn(200))
    del odd["result"][1]["value"]["x"]
    odd["result"][2]["value"]["height"] = None
    people.annotate(task_id, 0, odd)
    assert [a.box.x1 for a in one(studio, project).annotations] == [pytest.approx(10)]
    assert "x is None" in caplog.text
    assert "height is None" in caplog.text


def test_an_annotation_taken_back_is_told_and_the_task_is_open_again(
    studio: Studio, people: People, project: int, task_id: int
) -> None:
    older = people.annotate(task_id, 0, body(drawn(10)))
    newer = people.annotate(task_id, 1, body(drawn(200)))
    both = one(studio, project)
    people.take_back(newer)
    left = one(studio, project, since=both.updated_at + timedelta(microseconds=1))
    assert (left.annotation_id, left.annotators) == (older, 1)
    people.take_back(older)
    none = one(studio, project, since=left.updated_at + timedelta(microseconds=1))
    assert (none.annotators, none.labelled, none.annotations) == (0, False, ())
    assert none.updated_at > left.updated_at > both.updated_at
    assert studio.harvest(project) == []
    assert [task.task_id for task in studio.open_tasks(project)] == [task_id]


def test_a_skip_is_no_vote(studio: Studio, people: People, project: int, task_id: int) -> None:
    people.annotate(task_id, 0, body(drawn(10)))
    people.annotate(task_id, 1, body(was_cancelled=True))
    assert one(studio, project, "latest").skipped
    got = one(studio, project, "majority")
    assert (got.skipped, got.labelled, len(got.annotations), got.agreement) == (False, True, 1, None)
