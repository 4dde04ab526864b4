"""Tests of several annotators, doubts and changed annotations, with the fake and a real server."""

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
from dsmoe_core.data.import_account import Kind, Reason
from dsmoe_core.schema import Box, Harvest, ImageRecord, Vocabulary

Json = dict[str, Any]


class Annotators(Protocol):
    """Actions of annotators 0 and 1 in the labelling interface."""

    def annotate(self, task_id: int, annotator: int, body: Json) -> int: ...
    def update(self, annotation_id: int, body: Json) -> None: ...
    def delete(self, annotation_id: int) -> None: ...


class FakeAnnotators:
    def __init__(self, studio: FakeStudio) -> None:
        self._studio = studio

    def annotate(self, task_id: int, annotator: int, body: Json) -> int:
        return self._studio.annotate(task_id, {**body, "completed_by": annotator})

    def update(self, annotation_id: int, body: Json) -> None:
        self._studio.update_annotation(annotation_id, **body)

    def delete(self, annotation_id: int) -> None:
        self._studio.delete_annotation(annotation_id)


class RealAnnotators:
    def __init__(self, connection: Connection) -> None:
        self._api = Api(connection)
        with self._api.client("create a user") as sdk:
            email = f"{uuid.uuid4().hex[:8]}@dsmoe.local"
            self._users = [sdk.users.whoami().id, sdk.users.create(email=email, username=email).id]

    def annotate(self, task_id: int, annotator: int, body: Json) -> int:
        with self._api.client("annotate") as sdk:
            created = sdk.annotations.create(task_id, completed_by=self._users[annotator], **body)
        return int(created.id)

    def update(self, annotation_id: int, body: Json) -> None:
        with self._api.client("change an annotation") as sdk:
            sdk.annotations.update(annotation_id, **body)

    def delete(self, annotation_id: int) -> None:
        with self._api.client("delete an annotation") as sdk:
            sdk.annotations.delete(annotation_id)


@pytest.fixture
def annotators(studio: Studio, studio_kind: str, request: pytest.FixtureRequest) -> Annotators:
    if isinstance(studio, FakeStudio):
        return FakeAnnotators(studio)
    assert studio_kind == "real"
    return RealAnnotators(request.getfixturevalue("connection"))


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
    """A task with one pre-annotation of class "open" at (10, 10, 50, 50)."""
    studio.import_tasks(project, [make_task(images("a"), make_detection((10, 10, 50, 50)))])
    return studio.open_tasks(project)[0].task_id


def region(x: float, label: str = "open") -> Region:
    return Region(uuid.uuid4().hex[:10], Box(x, 10.0, x + 40, 50.0), label, "manual", None)


def body(*regions: Region, choice: ImageChoice | None = None, note: str = "", **more: Any) -> Json:
    """Body of an annotation, as the labelling interface sends it."""
    result = [to_result(region, 320, 200) for region in regions]
    if choice is not None:
        result.append(_image_result("choices", IMAGE_CHOICE, {"choices": [str(choice)]}))
    if note:
        result.append(_image_result("textarea", NOTE, {"text": [note]}))
    return {"result": result, "lead_time": 4.0, "was_cancelled": False, **more}


def _image_result(kind: str, control: str, value: Json) -> Json:
    identity = uuid.uuid4().hex[:10]
    return {"id": identity, "type": kind, "from_name": control, "to_name": OBJECT, "value": value}


def only_harvest(
    studio: Studio, project: int, consensus: Consensus = "latest", since: datetime | None = None
) -> Harvest:
    (harvest,) = studio.harvest(project, since=since, consensus=consensus)
    return harvest


def test_consensus_of_two_annotators(
    studio: Studio, annotators: Annotators, project: int, task_id: int
) -> None:
    annotators.annotate(task_id, 0, body(region(10), region(100)))
    annotators.annotate(task_id, 1, body(region(12), region(200, "spur")))
    boxes = {
        consensus: sorted(
            (round(a.box.x1, 3), a.label) for a in only_harvest(studio, project, consensus).annotations
        )
        for consensus in ("latest", "majority", "union")
    }
    assert boxes == {
        "latest": [(12.0, "open"), (200.0, "spur")],
        "majority": [(11.0, "open")],
        "union": [(11.0, "open"), (100.0, "open"), (200.0, "spur")],
    }
    harvest = only_harvest(studio, project, "majority")
    assert (harvest.annotators, harvest.agreement, harvest.seconds) == (2, 0.5, 8.0)


def test_ground_truth_overrides_a_later_annotation(
    studio: Studio, annotators: Annotators, project: int, task_id: int
) -> None:
    first = annotators.annotate(task_id, 0, body(region(100), ground_truth=True))
    annotators.annotate(task_id, 1, body(region(10), region(200)))
    for consensus in ("latest", "majority", "union"):
        harvest = only_harvest(studio, project, consensus)
        assert [a.box.x1 for a in harvest.annotations] == [pytest.approx(100)]
        assert harvest.annotation_id == first
    before = only_harvest(studio, project).updated_at
    annotators.update(first, {"ground_truth": False})
    harvest = only_harvest(studio, project, "union", since=before)
    assert len(harvest.annotations) == 3
    assert harvest.updated_at > before


def test_two_annotations_of_one_annotator_count_once(
    studio: Studio, annotators: Annotators, project: int, task_id: int
) -> None:
    annotators.annotate(task_id, 0, body(region(10)))
    annotators.annotate(task_id, 0, body(region(200)))
    harvest = only_harvest(studio, project, "union")
    assert [a.box.x1 for a in harvest.annotations] == [pytest.approx(200)]
    assert (harvest.annotators, harvest.agreement) == (1, None)


@pytest.mark.parametrize("choice", [ImageChoice.UNSURE, ImageChoice.NEEDS_EXPERT])
def test_image_in_doubt_is_not_labelled_until_it_is_resolved(
    studio: Studio, annotators: Annotators, project: int, task_id: int, choice: ImageChoice
) -> None:
    identity = annotators.annotate(task_id, 0, body(region(10), choice=choice, note="scratch or spur?"))
    harvest = only_harvest(studio, project)
    assert (harvest.doubt, harvest.note, harvest.labelled, len(harvest.annotations)) == (
        str(choice),
        "scratch or spur?",
        False,
        1,
    )
    annotators.update(identity, body(region(10, "spur"), note="a spur"))
    harvest = only_harvest(studio, project, since=harvest.updated_at)
    assert (harvest.doubt, harvest.note, harvest.labelled) == (None, "a spur", True)


def test_no_defect_is_a_label_and_unsure_if_there_is_a_box(
    studio: Studio, annotators: Annotators, project: int, task_id: int
) -> None:
    identity = annotators.annotate(task_id, 0, body(choice=ImageChoice.NO_DEFECT))
    harvest = only_harvest(studio, project)
    assert (harvest.labelled, harvest.annotations, harvest.doubt) == (True, (), None)
    annotators.update(identity, body(region(10), choice=ImageChoice.NO_DEFECT))
    harvest = only_harvest(studio, project)
    assert (harvest.labelled, harvest.doubt) == (False, "unsure")
    assert harvest.note == '("no defect" is selected, number of boxes: 1)'


def test_invalid_regions_of_other_programs_are_left_out(
    studio: Studio, annotators: Annotators, project: int, task_id: int
) -> None:
    """The server only checks that an annotation's result is a list."""
    invalid = body(region(10), region(100), region(200))
    del invalid["result"][1]["value"]["x"]
    invalid["result"][2]["value"]["height"] = None
    annotators.annotate(task_id, 0, invalid)
    harvest = only_harvest(studio, project)
    assert [a.box.x1 for a in harvest.annotations] == [pytest.approx(10)]
    assert (harvest.labelled, harvest.doubt) == (False, "unsure")
    assert harvest.account is not None
    assert [e.reason for e in harvest.account.entries if e.kind is Kind.BOX] == [Reason.NOT_NUMBERS] * 2


def test_deleted_annotations_are_harvested_and_the_task_is_open_again(
    studio: Studio, annotators: Annotators, project: int, task_id: int
) -> None:
    older = annotators.annotate(task_id, 0, body(region(10)))
    newer = annotators.annotate(task_id, 1, body(region(200)))
    both = only_harvest(studio, project)
    annotators.delete(newer)
    remaining = only_harvest(studio, project, since=both.updated_at + timedelta(microseconds=1))
    assert (remaining.annotation_id, remaining.annotators) == (older, 1)
    annotators.delete(older)
    empty = only_harvest(studio, project, since=remaining.updated_at + timedelta(microseconds=1))
    assert (empty.annotators, empty.labelled, empty.annotations) == (0, False, ())
    assert empty.updated_at > remaining.updated_at > both.updated_at
    assert studio.harvest(project) == []
    assert [task.task_id for task in studio.open_tasks(project)] == [task_id]


def test_skipped_task_does_not_vote(
    studio: Studio, annotators: Annotators, project: int, task_id: int
) -> None:
    annotators.annotate(task_id, 0, body(region(10)))
    annotators.annotate(task_id, 1, body(was_cancelled=True))
    assert only_harvest(studio, project, "latest").skipped
    harvest = only_harvest(studio, project, "majority")
    assert (harvest.skipped, harvest.labelled, len(harvest.annotations), harvest.agreement) == (
        False,
        True,
        1,
        None,
    )
