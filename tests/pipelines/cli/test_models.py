"""Commands `dsmoe models`: list, compare, promote, refuse and rollback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import cli
from pipelines.rounds.context import LoopContext
from pipelines.rounds.loop import close_round, open_round
from pipelines.settings.gate import GateSettings
from pipelines.workspace.workspace import Workspace

Label = Callable[[LoopContext], None]


def dsmoe(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    assert cli.run([str(a) for a in arguments]) == code
    captured = capsys.readouterr()
    return captured.err if code else captured.out


@pytest.fixture
def held(workspace: Workspace, context: LoopContext, label: Label) -> tuple[Path, str, str]:
    """A workspace, its champion, and a candidate that is held for approval."""
    gate = GateSettings(checks=(), approval=True, resamples=200)
    workspace.settings = workspace.settings.model_copy(update={"gate": gate})
    workspace.settings.write(workspace.path / "dsmoe.yaml")
    models = []
    for _ in range(2):
        open_round(context)
        label(context)
        models.append(close_round(context).model or "")
    return workspace.path, models[0], models[1]


def states(capsys: pytest.CaptureFixture[str], w: Path) -> dict[str, str]:
    listed = json.loads(dsmoe(capsys, "models", "list", w, "--json"))
    return {row["id"]: row["state"] for row in listed["models"]}


def test_list_of_a_new_workspace_is_empty(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert dsmoe(capsys, "models", "list", workspace.path).count("\n") == 1
    assert states(capsys, workspace.path) == {}


def test_held_candidate_is_compared_promoted_and_rolled_back(
    held: tuple[Path, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    w, first, second = held
    assert states(capsys, w) == {first: "champion", second: "held for approval"}
    compared = json.loads(dsmoe(capsys, "models", "compare", second, "champion", w, "--json"))
    assert (compared["first"], compared["second"], compared["images"]) == (second, first, 5)
    assert compared["total"].keys() == {"map50", "map", "precision", "recall", "f1"}
    for d in compared["total"].values():
        assert d["delta"] == pytest.approx(d["first"] - d["second"])
        assert d["interval"][0] <= d["interval"][1]
    assert {row["boxes"] > 0 for row in compared["classes"].values()} == {True}
    assert second in dsmoe(capsys, "models", "compare", second, first, w)
    dsmoe(capsys, "models", "promote", second, w, "--reason", "looks right")
    assert states(capsys, w) == {first: "earlier champion", second: "champion"}
    shown = dsmoe(capsys, "models", "show", second, w)
    assert "looks right" in shown
    with Workspace.open(w) as opened:
        points = opened.registry.operating_points(second)
    assert points is not None
    assert points.thresholds
    for label, score in points.thresholds.items():
        assert f"{label} {score:.2f}" in shown
    dsmoe(capsys, "models", "rollback", w, "--reason", "false alarms")
    assert states(capsys, w) == {first: "champion", second: "earlier champion"}


def test_held_candidate_is_refused_with_a_reason(
    held: tuple[Path, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    w, first, second = held
    dsmoe(capsys, "models", "refuse", second, w, code=2)  # a reason is needed
    dsmoe(capsys, "models", "refuse", first, w, "--reason", "the champion", code=2)
    dsmoe(capsys, "models", "refuse", second, w, "--reason", "misses spurs")
    assert states(capsys, w) == {first: "champion", second: "refused"}
    with Workspace.open(w) as opened:
        assert opened.journal.value("held") is None
