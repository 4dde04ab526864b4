"""Tests of the lineage after two rounds with the stub detector and the fake Label Studio."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

import pytest

from annotate.studio.fake import FakeStudio
from dsmoe_core.errors import DataError
from dsmoe_core.schema import Annotation, Arm, Box, BoxOutcome, Outcome
from pipelines.cli import run
from pipelines.rounds.context import LoopContext
from pipelines.rounds.loop import close_round, open_round
from pipelines.workspace import harvest_boxes
from pipelines.workspace.lineage import explain
from pipelines.workspace.workspace import Workspace

Label = Callable[[LoopContext], None]


@pytest.fixture
def workspace_after(context: LoopContext, label: Label) -> Workspace:
    for _ in range(2):
        open_round(context)
        label(context)
        close_round(context)
    return context.workspace


def test_a_ranked_image_leads_to_its_model_and_its_later_use(workspace_after: Workspace) -> None:
    workspace = workspace_after
    first, second = workspace.rounds()
    task = next(t for t in workspace.journal.tasks(1) if t.arm is Arm.RANKED and t.version)
    lineage = explain(workspace, str(task.task_id))
    assert (lineage.key, lineage.round, lineage.arm, lineage.rank) == (task.key, 1, "ranked", task.rank)
    assert (lineage.acquisition, lineage.score) == (task.acquisition, task.score)
    assert lineage.model is not None
    card = workspace.registry.card(str(first.model))
    assert (lineage.model.id, lineage.model.dataset_version) == (card.id, first.dataset_version)
    assert (lineage.model.commit, lineage.model.class_book) == (card.commit, workspace.class_book().version)
    assert lineage.experts == ((0, 1.0),)
    assert lineage.dataset_versions == (second.dataset_version,)
    assert lineage.trained_models == (second.model,)
    assert explain(workspace, task.key[:12]) == explain(workspace, lineage.name) == lineage


def test_outcomes_of_detections_add_up_to_those_of_the_image(workspace_after: Workspace) -> None:
    workspace = workspace_after
    harvests = workspace.journal.harvests()
    checked = Counter[str]()
    for task in workspace.journal.tasks(1):
        lineage = explain(workspace, task.key)
        assert lineage.annotation is not None
        assert lineage.annotation.annotators == ("0",)
        counts = Counter({str(k): v for k, v in harvests[task.key].outcomes.items() if v})
        outcomes = Counter(d.outcome for d in lineage.detections if d.outcome)
        outcomes["added"] = len(lineage.annotation.added)
        assert +outcomes == counts
        for d in lineage.detections:
            assert (d.annotated is None) == (d.outcome in (None, "deleted"))
        checked += counts
    assert checked.total() > 0


def test_seed_images_have_no_model_and_are_in_both_datasets(workspace_after: Workspace) -> None:
    first, second = workspace_after.rounds()
    lineage = explain(workspace_after, workspace_after.journal.tasks(0)[0].key)
    assert (lineage.model, lineage.detections, lineage.score, lineage.arm) == (None, (), None, "seed")
    assert lineage.dataset_versions == (first.dataset_version, second.dataset_version)
    assert lineage.trained_models == (first.model, second.model)
    assert lineage.annotation is not None
    assert len(lineage.annotation.added) == lineage.annotation.boxes


def test_images_that_were_not_sent_have_an_empty_lineage(workspace_after: Workspace) -> None:
    sent = {task.key for task in workspace_after.journal.tasks()}
    waiting = next(i for i in workspace_after.images("pool") if i.key not in sent)
    lineage = explain(workspace_after, waiting.name)
    assert (lineage.round, lineage.task_id, lineage.annotation, lineage.role) == (None, None, None, "pool")
    assert (lineage.dataset_versions, lineage.trained_models) == ((), ())
    test = explain(workspace_after, workspace_after.images("test")[0].key)
    assert (test.role, test.dataset_versions) == ("test", (workspace_after.journal.value("test_set"),))
    assert test.trained_models == ()


def test_one_detection_is_selected_by_its_index(workspace_after: Workspace) -> None:
    lineages = [explain(workspace_after, task.key) for task in workspace_after.journal.tasks(1)]
    whole = next(one for one in lineages if one.detections)
    assert explain(workspace_after, whole.key, 0).detections == whole.detections[:1]
    with pytest.raises(DataError):
        explain(workspace_after, whole.key, len(whole.detections))
    with pytest.raises(DataError):
        explain(workspace_after, "no-such-image")


def test_the_command_prints_json_and_text(
    workspace_after: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    key = workspace_after.journal.tasks(1)[0].key
    where = str(workspace_after.path)
    assert run(["explain", key, where, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["key"] == key
    assert document == explain(workspace_after, key).to_dict()
    assert run(["explain", key, where]) == 0
    assert key in capsys.readouterr().out.replace("\n", "")
    assert run(["explain", "nothing", where]) == 2


def test_of_an_annotator_only_the_id_is_stored(context: LoopContext, label: Label) -> None:
    open_round(context)
    label(context)
    studio = context.studio
    assert isinstance(studio, FakeStudio)
    person = {"id": 7, "email": "ann@example.org", "first_name": "Ann"}
    for task in studio._state["tasks"]:
        for annotation in task["annotations"]:
            annotation["completed_by"] = person
    close_round(context)
    key = context.workspace.journal.tasks(0)[0].key
    lineage = explain(context.workspace, key)
    assert lineage.annotation is not None
    assert lineage.annotation.annotators == ("7",)
    stored = b"".join(p.read_bytes() for p in context.workspace.path.glob("journal.sqlite*"))
    assert b"ann@example.org" not in stored
    assert b"first_name" not in stored


def test_outcomes_survive_the_journal() -> None:
    annotation = Annotation(Box(1.0, 2.0, 3.5, 4.0), "spur")
    boxes = (
        BoxOutcome(Outcome.DELETED, annotation, None),
        BoxOutcome(Outcome.ADDED, None, annotation),
    )
    read = harvest_boxes.from_row(
        ["3"],
        [
            {"outcome": "deleted", "shown": [1, 2, 3.5, 4, "spur"], "annotated": None},
            {"outcome": "added", "shown": None, "annotated": [1, 2, 3.5, 4, "spur"]},
        ],
    )
    assert (read.annotators, read.boxes) == (("3",), boxes)
