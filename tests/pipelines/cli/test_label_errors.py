"""Tests of dsmoe label-errors on a workspace after two rounds, and on a folder with given predictions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsmoe_core.data import coco
from pipelines.cli import run
from pipelines.label_errors.data import labels_of_workspace
from pipelines.rounds.context import LoopContext
from pipelines.rounds.loop import close_round, open_round

Label = Callable[[LoopContext], None]


@pytest.fixture
def after_two_rounds(context: LoopContext, label: Label) -> LoopContext:
    for _ in range(2):
        open_round(context)
        label(context)
        close_round(context)
    return context


def test_a_workspace_is_checked_with_models_that_did_not_learn_the_image(
    after_two_rounds: LoopContext, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = after_two_rounds.workspace
    checked = labels_of_workspace(workspace)
    seed, ranked = ({t.key for t in workspace.journal.tasks(n)} for n in (0, 1))
    assert {item.image.key for item in checked.labelled} == ranked
    assert (checked.left_out, dict(checked.models)) == (len(seed), {workspace.rounds()[0].model: len(ranked)})
    assert run(["label-errors", str(workspace.path), "--min-score", "0"]) == 0
    document = json.loads((workspace.path / "label_errors.json").read_text())
    assert (document["method"], document["images"], document["left_out"]) == ("dsmoe", len(ranked), len(seed))
    assert {error["key"] for error in document["errors"]} <= ranked


def test_an_unlabelled_workspace_is_refused(context: LoopContext, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["label-errors", str(context.workspace.path)]) == 2
    assert "--model" in capsys.readouterr().err


def given_predictions(blocks: Path, **changes: Any) -> dict[str, Any]:
    """The labels of val.json as predictions of score 0.9."""
    document: dict[str, Any] = json.loads((blocks / "val.json").read_text())
    rows = [{**row, "score": 0.9} for row in document["annotations"]]
    return {**document, "annotations": rows, **changes}


def test_given_predictions_replace_a_model(blocks: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "predictions.json", tmp_path / "errors.json"
    file.write_text(json.dumps(given_predictions(blocks)))
    options = ["--data", str(blocks), "--annotations", str(blocks / "val.json"), "--predictions", str(file)]
    assert run(["label-errors", *options, "--json", str(out), "--min-score", "0"]) == 0
    document = json.loads(out.read_text())
    boxes = sum(len(entry.annotations) for entry in coco.read(blocks / "val.json").images)
    assert sum(error["kind"] == "misplaced" for error in document["errors"]) == boxes
    assert max(error["score"] for error in document["errors"] if error["kind"] == "misplaced") < 0.01


@pytest.mark.parametrize(
    "damage", [{"annotations": [{"image_id": 1}]}, {"images": []}, {"categories": [{"id": 1, "name": "x"}]}]
)
def test_damaged_predictions_are_refused(blocks: Path, tmp_path: Path, damage: dict[str, Any]) -> None:
    file = tmp_path / "predictions.json"
    file.write_text(json.dumps(given_predictions(blocks, **damage)))
    options = ["--data", str(blocks), "--annotations", str(blocks / "val.json"), "--predictions", str(file)]
    assert run(["label-errors", *options, "--json", str(tmp_path / "e.json")]) == 2


@pytest.mark.parametrize(
    "options",
    [["--data", "d"], ["--data", "d", "--model", "m", "--predictions", "p"], ["--data", "d", "--studio"]],
)
def test_contradicting_options_are_refused(options: list[str]) -> None:
    assert run(["label-errors", *options]) == 2
