"""`dsmoe demo` with stubs: resumable, repeatable, honest about what it shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dsmoe_core.errors import SettingsError, WorkspaceError
from pipelines import cli, demo
from pipelines.benchmarks.tables import render, update
from pipelines.progress import SilentProgress
from pipelines.rounds.context import LoopContext
from pipelines.rounds.loop import open_round
from pipelines.settings import DemoPlan, Environment
from pipelines.workspace.workspace import Workspace


@pytest.fixture
def dsmoe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], blocks: Path):  # type: ignore[no-untyped-def]
    """Runs the demo on the blocks; gives exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        code = cli.run(["demo", "--data", str(blocks), "--dry-run", "--budget", "3", "--rounds", "1", *words])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def test_it_shows_a_table_writes_json_and_is_done_once(dsmoe, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    code, out, err = dsmoe("--json", "out.json")
    assert code == 0, err
    assert "dry run" in out
    assert "promoted: first model, mAP" in " ".join(out.split())
    written = json.loads((tmp_path / "out.json").read_text())
    assert {"command", "date", "machine", "seeds", "data", "minutes", "rounds"} <= set(written)
    assert written["data"] == "data"
    assert [row["round"] for row in written["rounds"]] == [0, 1]
    assert [row["images"] for row in written["rounds"]] == [3, 6]
    assert "accepted" not in written["rounds"][0]  # nothing was shown, so nothing is claimed
    shares = [written["rounds"][1][name] for name in ("accepted", "moved", "relabelled", "deleted")]
    assert sum(shares) == pytest.approx(1, abs=0.001)
    before = (tmp_path / "workspaces" / "dry-run-data" / "journal.sqlite").read_bytes()
    code, again, _ = dsmoe("--json", "again.json")
    assert code == 0
    assert "`--fresh` starts it afresh" in again
    assert json.loads((tmp_path / "again.json").read_text())["rounds"] == written["rounds"]
    assert (tmp_path / "workspaces" / "dry-run-data" / "journal.sqlite").read_bytes() == before


def test_the_same_seed_gives_the_same_rounds_afresh(dsmoe, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    def rounds(*words: str) -> object:
        assert dsmoe("--json", "out.json", *words)[0] == 0
        return json.loads((tmp_path / "out.json").read_text())["rounds"]

    one = rounds()
    assert rounds("--fresh") == one
    assert rounds("--fresh", "--seed", "7") != one


def test_more_rounds_go_on_and_other_options_are_refused(dsmoe) -> None:  # type: ignore[no-untyped-def]
    assert dsmoe()[0] == 0
    assert dsmoe("--rounds", "2")[0] == 0
    code, _, err = dsmoe("--budget", "4")
    assert code == 2
    assert "was made by a demo with other options: round" in err


def test_fresh_deletes_workspaces_only(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(WorkspaceError, match="was not deleted"):
        demo.delete_workspace(tmp_path, Environment.read({}))
    assert (tmp_path / "thesis.txt").exists()


def test_a_plan_whose_parts_do_not_fit_is_refused() -> None:
    from pipelines.settings import validate_settings

    with pytest.raises(SettingsError, match="candidates is 5; expected at least the budget, 9"):
        validate_settings(DemoPlan, {"budget": 9, "candidates": 5}, "the command line")


def test_it_waits_for_people(context: LoopContext, workspace: Workspace) -> None:
    """A person answers one image between two looks; it goes on when none of the round is left."""
    row = open_round(context)
    looks: list[int] = []

    class Watching(SilentProgress):
        def advance(self, done: int, total: int, note: str = "") -> None:
            looks.append(done)
            project = context.project()
            if left := context.studio.open_tasks(project):
                context.studio.submit(project, left[0], [], seconds=1.0)

    invited: list[int] = []
    waiting = LoopContext(workspace, context.studio, context.detector, Watching())
    demo.wait_for_annotators(lambda r: invited.append(r.round), poll_s=0.0)(waiting, row)
    assert invited == [0]
    assert looks == [0, 1, 2, 3]


def test_readme_tables_come_from_result_files(dsmoe, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
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
    shown = json.loads((results / "demo.json").read_text())
    shown["rounds"][0]["images"] = 99
    (results / "demo.json").write_text(json.dumps(shown))
    assert "| 0 | 99 |" in render(text, results)


def test_a_mark_without_its_end_or_its_file_is_refused(tmp_path: Path) -> None:
    from dsmoe_core.errors import FormatError

    with pytest.raises(FormatError, match="has no `<!-- /results:NAME -->`"):
        render("<!-- results:demo -->\n", tmp_path)
    with pytest.raises(FormatError, match=r"demo\.json is not there"):
        render("<!-- results:demo -->\n<!-- /results:demo -->\n", tmp_path)
    with pytest.raises(FormatError, match="no table is known for results:luck"):
        render("<!-- results:luck -->\n<!-- /results:luck -->\n", tmp_path)


def test_one_more_round_is_left_open_for_visitors(context: LoopContext, workspace: Workspace) -> None:
    row = demo.open_next_round(context)
    assert row is not None
    assert row.state == "open"
    again = demo.open_next_round(context)
    assert again is not None
    assert again.round == row.round
    sent = {task.key for task in workspace.journal.tasks(row.round)}
    assert {task.key for task in context.studio.open_tasks(context.project())} == sent


def test_an_open_round_is_no_result_yet(context: LoopContext, workspace: Workspace) -> None:
    demo.open_next_round(context)
    data = demo.DemoData(workspace.path, "drawn")
    assert demo.result(workspace, data, DemoPlan())["rounds"] == []
