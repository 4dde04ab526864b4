"""``dsmoe demo`` with stubs: results, resuming, options, and the tables of the documents."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dsmoe_core.errors import SettingsError, WorkspaceError
from pipelines import cli, demo
from pipelines.benchmarks.tables import render, update
from pipelines.progress import SilentProgress
from pipelines.rounds.context import LoopContext
from pipelines.rounds.loop import open_round
from pipelines.settings.demo import DemoPlan
from pipelines.settings.environment import Environment
from pipelines.workspace.workspace import Workspace


@pytest.fixture
def dsmoe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], blocks: Path):  # type: ignore[no-untyped-def]
    """Run the demo on the blocks; returns exit code, output and error output."""
    monkeypatch.chdir(tmp_path)

    def run(*options: str) -> tuple[int, str, str]:
        code = cli.run(
            ["demo", "--data", str(blocks), "--dry-run", "--budget", "3", "--rounds", "1", *options]
        )
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_demo_prints_a_table_writes_json_and_runs_once(dsmoe, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    code, out, err = dsmoe("--json", "out.json")
    assert code == 0, err
    assert "dry run" in out
    assert "promoted: first model" in " ".join(out.split())
    written = json.loads((tmp_path / "out.json").read_text())
    assert {"command", "date", "machine", "seeds", "data", "minutes", "rounds"} <= set(written)
    assert written["data"] == "data"
    assert [row["round"] for row in written["rounds"]] == [0, 1]
    assert [row["pictures"] for row in written["rounds"]] == [3, 6]
    assert "accepted" not in written["rounds"][0]  # round 0 has no pre-annotations
    shares = [written["rounds"][1][name] for name in ("accepted", "moved", "relabelled", "deleted")]
    assert sum(shares) == pytest.approx(1, abs=0.001)
    before = (tmp_path / "workspaces" / "dry-run-data" / "journal.sqlite").read_bytes()
    code, again, _ = dsmoe("--json", "again.json")
    assert code == 0
    assert "--fresh" in again
    assert json.loads((tmp_path / "again.json").read_text())["rounds"] == written["rounds"]
    assert (tmp_path / "workspaces" / "dry-run-data" / "journal.sqlite").read_bytes() == before


@pytest.mark.slow
def test_rounds_depend_on_the_seed_only(dsmoe, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    def rounds(*options: str) -> object:
        assert dsmoe("--json", "out.json", *options)[0] == 0
        return json.loads((tmp_path / "out.json").read_text())["rounds"]

    first = rounds()
    assert rounds("--fresh") == first
    assert rounds("--fresh", "--seed", "7") != first


def test_more_rounds_resume_and_other_options_are_refused(dsmoe) -> None:  # type: ignore[no-untyped-def]
    assert dsmoe()[0] == 0
    assert dsmoe("--rounds", "2")[0] == 0
    code, _, err = dsmoe("--budget", "4")
    assert code == 2
    assert "round.budget is 3, now 4" in err


def test_fresh_deletes_only_workspaces(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(WorkspaceError, match=str(tmp_path)):
        demo.delete_workspace(tmp_path, Environment.read({}))
    assert (tmp_path / "thesis.txt").exists()


def test_plan_with_fewer_candidates_than_the_budget_is_refused() -> None:
    from pipelines.settings.validation import validate_settings

    with pytest.raises(SettingsError, match=r"5.*9"):
        validate_settings(DemoPlan, {"budget": 9, "candidates": 5}, "the command line")


def test_waits_until_all_images_are_annotated(context: LoopContext, workspace: Workspace) -> None:
    """One image is annotated between two checks."""
    row = open_round(context)
    progress: list[int] = []

    class AnnotateOne(SilentProgress):
        def advance(self, done: int, total: int, note: str = "") -> None:
            progress.append(done)
            project = context.project()
            if left := context.studio.open_tasks(project):
                context.studio.submit(project, left[0], [], seconds=1.0)

    invited: list[int] = []
    waiting = LoopContext(workspace, context.studio, context.detector, AnnotateOne())
    demo.wait_for_annotators(lambda r: invited.append(r.round), poll_s=0.0)(waiting, row)
    assert invited == [0]
    assert progress == [0, 1, 2, 3]


def test_readme_tables_are_rendered_from_result_files(dsmoe, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    results = tmp_path / "results"
    assert dsmoe("--json", str(results / "demo.json"))[0] == 0
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- results:demo -->\nold\n<!-- /results:demo -->\nafter\n")
    assert update(readme, results)
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| 0 | 3 |" in text
    assert "old" not in text
    assert "dsmoe demo" in text or "`dsmoe" in text
    assert not update(readme, results)
    result = json.loads((results / "demo.json").read_text())
    result["rounds"][0]["pictures"] = 99
    (results / "demo.json").write_text(json.dumps(result))
    assert "| 0 | 99 |" in render(text, results)


def test_table_mark_without_end_file_or_renderer_is_refused(tmp_path: Path) -> None:
    from dsmoe_core.errors import FormatError

    with pytest.raises(FormatError, match="results:"):
        render("<!-- results:demo -->\n", tmp_path)
    with pytest.raises(FormatError, match=r"demo\.json"):
        render("<!-- results:demo -->\n<!-- /results:demo -->\n", tmp_path)
    with pytest.raises(FormatError, match="luck"):
        render("<!-- results:luck -->\n<!-- /results:luck -->\n", tmp_path)


def test_one_more_round_is_left_open(context: LoopContext, workspace: Workspace) -> None:
    row = demo.open_next_round(context)
    assert row is not None
    assert row.state == "open"
    again = demo.open_next_round(context)
    assert again is not None
    assert again.round == row.round
    sent = {task.key for task in workspace.journal.tasks(row.round)}
    assert {task.key for task in context.studio.open_tasks(context.project())} == sent


def test_pre_annotated_round_is_announced_once(context: LoopContext, workspace: Workspace) -> None:
    announced: list[int] = []
    annotated: list[int] = []
    rounds = [replace(open_round(context), round=number) for number in (0, 1, 2)]
    annotate = demo.announced(
        lambda _, row: annotated.append(row.round), lambda row: announced.append(row.round)
    )
    for row in rounds:
        annotate(context, row)
    assert announced == [1]
    assert annotated == [0, 1, 2]


def test_open_round_is_not_in_the_result(context: LoopContext, workspace: Workspace) -> None:
    demo.open_next_round(context)
    data = demo.DemoData(workspace.path, "blocks")
    assert demo.result(workspace, data, DemoPlan())["rounds"] == []
