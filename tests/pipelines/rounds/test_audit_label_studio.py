"""What annotators see in a real Label Studio, and what the control arm and the blind audit say afterwards."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from annotate.studio.api import Api
from annotate.studio.client import LabelStudio
from annotate.studio.protocol import Connection
from annotate.studio.server import LabelStudioServer
from annotate.studio.task_query import PREDICTIONS, query_tasks
from dsmoe_core.schema import Arm
from dsmoe_core.uncertainty.score_kinds import Addressee
from pipelines.cli import run
from pipelines.detectors.pre_annotations import shown_detections
from pipelines.rounds.context import LoopContext
from pipelines.rounds.loop import close_round, open_round
from pipelines.workspace.workspace import Workspace

pytestmark = [pytest.mark.labelstudio, pytest.mark.timeout(900)]
Label = Callable[[LoopContext], None]


def tasks_of_round(connection: Connection, project: int, number: int) -> dict[str, dict[str, Any]]:
    """The tasks as the server has them, by image key."""
    tasks = query_tasks(Api(connection), project, PREDICTIONS)
    return {t["data"]["key"]: dict(t) for t in tasks if t["data"]["round"] == number}


def check_what_annotators_see(workspace: Workspace, sent: dict[str, dict[str, Any]], number: int) -> None:
    planned = workspace.journal.tasks(number)
    assert sent.keys() == {task.key for task in planned}
    stored = workspace.predictions()
    blind = 0
    for task in planned:
        reason, predictions = sent[task.key]["data"]["reason"], sent[task.key]["predictions"]
        if task.arm is Arm.RANKED:
            assert f"selected by {task.acquisition}, score {task.score:.2f}" in reason
            assert f"for the {Addressee.ANNOTATOR}" in reason
        else:
            assert "at random" in reason
        assert ("blind audit" in reason) == (task.version is None)
        if task.version is None:
            blind += 1
            assert predictions == []
        else:
            (prediction,) = predictions
            shown = shown_detections(workspace, stored[task.key]).detections
            labels = [r["value"]["rectanglelabels"][0] for r in prediction["result"]]
            assert sorted(labels) == sorted(d.label for d in shown)
    assert blind == 1


def test_two_ranked_rounds(
    context: LoopContext,
    workspace: Workspace,
    server: LabelStudioServer,
    label: Label,
    capsys: pytest.CaptureFixture[str],
) -> None:
    connection = server.start()
    changes = {"budget": 4, "random_share": 0.25, "blind_share": 0.25, "duplicate_similarity": None}
    workspace.settings = workspace.settings.model_copy(
        update={
            "title": f"audit {uuid.uuid4().hex[:8]}",
            "round": workspace.settings.round.model_copy(update=changes),
        }
    )
    workspace.complete()
    context = replace(context, studio=LabelStudio(connection))
    for number in range(3):
        open_round(context)
        if number:
            sent = tasks_of_round(connection, context.project(), number)
            check_what_annotators_see(workspace, sent, number)
        label(context)
        close_round(context)
    capsys.readouterr()
    assert run(["status", str(workspace.path), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    arm, audit, stop = (status[name] for name in ("control_arm", "blind_audit", "stop_signal"))
    assert arm["ranked"] + arm["random"] == 6
    assert arm["enough"] is False
    assert audit["blind"] == 2
    assert audit["shown"] == 6
    assert audit["boxes"]["low"] <= audit["boxes"]["value"] <= audit["boxes"]["high"]
    assert 0 <= audit["predicted"]["value"] <= 1
    assert 0 <= audit["agreement"]["value"] <= 1
    assert stop["rounds"] == 3
    assert 0 <= stop["gain"]["low"] <= stop["gain"]["value"] <= stop["gain"]["high"] <= 1
    assert status["rounds"][0]["arms"] == {}
    assert [row["arms"]["blind"]["images"] for row in status["rounds"][1:]] == [1, 1]
    capsys.readouterr()
    assert run(["status", str(workspace.path)]) == 0
    text = capsys.readouterr().out
    assert "Control arm" in text
    assert "Blind audit" in text
    assert "200 more boxes" in text
