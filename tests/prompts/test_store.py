"""Versions of the class book: immutable, published on a report or a reason, and one at a time."""

from __future__ import annotations

import multiprocessing
import sqlite3
from contextlib import closing
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsmoe_core.errors import ClassBookError, WorkspaceError
from prompts.evaluation_report import TextEvaluationReport
from prompts.glossary import glossary_book
from prompts.store import ClassBookStore, Version

FIRST = glossary_book(["spur", "short"])


def said(text: str) -> str:
    """The YAML of the first book with another text for the spur, and a comment."""
    return FIRST.with_description("spur", text, "person", "Ada").as_yaml() + "# mine\n"


def report(book: Version, against: Version, verdict: str = "better") -> TextEvaluationReport:
    return TextEvaluationReport.model_validate(
        {
            "book": book.id,
            "against": against.id,
            "model": "r1",
            "data": "test, 9 images",
            "verdict": verdict,
            "reason": "mAP 0.1 higher",
            "made": "2026-01-02",
        }
    )


@pytest.fixture
def store(tmp_path: Path) -> ClassBookStore:
    return ClassBookStore(tmp_path / "books.sqlite")


@pytest.fixture
def first(store: ClassBookStore) -> Version:
    """The first version, published."""
    version = store.save(FIRST.as_yaml(), message="the first one", author="Ada")
    store.publish(version.id, over=None, author="Ada", force_reason="the first one")
    return version


def put(store: ClassBookStore, text: str) -> Version:
    """Save and publish on a person's word."""
    before = store.published()
    version = store.save(said(text), message=text, author="Bob")
    store.publish(version.id, over=before and before.id, author="Bob", force_reason="a test")
    return version


def test_nothing_is_there_before_the_first_version(store: ClassBookStore) -> None:
    assert (store.versions(), store.history(), store.published()) == ([], [], None)
    assert not store.path.exists()
    with pytest.raises(ClassBookError, match="'abc' is no version of this class book; the latest are: none"):
        store.version("abc")


def test_a_version_is_the_text_as_people_wrote_it_and_comes_once(
    store: ClassBookStore, first: Version
) -> None:
    saved = store.save(said("a thorn"), message="a thorn", author="Ada")
    again = store.save(said("a thorn") + "# more\n", message="other words", author="Bob")
    assert again == saved
    assert (saved.text, saved.parent, saved.state) == (said("a thorn"), first.id, "draft")
    assert saved.book.entry("spur").description == "a thorn"
    assert [v.id for v in store.versions()] == [first.id, saved.id]
    assert store.version(saved.id[:5]) == saved


@settings(max_examples=15, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=40), min_size=1, max_size=4))
def test_what_is_saved_comes_back_the_same_under_the_same_version(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    store = ClassBookStore(tmp_path_factory.mktemp("store") / "books.sqlite")
    for text in texts:
        try:
            book = FIRST.with_description("spur", text, "person", "Ada")
        except ClassBookError:
            continue  # control characters, or nothing but spaces
        saved = store.save(book.as_yaml(), message="m", author="a")
        assert saved.id == book.version == saved.book.version
        assert store.version(saved.id).book == book
        assert store.save(saved.book.as_yaml(), message="m", author="a") == saved


def test_publishing_needs_a_report_that_fits_or_a_reason(store: ClassBookStore, first: Version) -> None:
    draft, other = (store.save(said(t), message=t, author="Ada") for t in ("a thorn", "a spike"))
    refusals = [
        (None, "has no judge's report"),
        (report(other, first), f"the report judges version {other.id}; expected one on {draft.id}"),
        (report(draft, other), f"the report compares with {other.id}; expected {first.id}"),
        (report(draft, first, "worse"), "verdict on .* is 'worse': mAP 0.1 higher"),
        (report(draft, first, "undecided"), "'undecided'"),
    ]
    for one, expected in refusals:
        with pytest.raises(ClassBookError, match=f"{expected}.*--force REASON"):
            store.publish(draft.id, over=first.id, author="Ada", report=one)
    for empty in ("", "  "):
        with pytest.raises(ClassBookError, match="the reason is empty"):
            store.publish(draft.id, over=first.id, author="Ada", force_reason=empty)
    assert store.published() == store.version(first.id)
    act = store.publish(draft.id, over=first.id, author="Ada", report=report(draft, first, "no worse"))
    assert (act.version, act.before, act.forced, act.reason) == (draft.id, first.id, False, "mAP 0.1 higher")
    assert store.history()[-1] == act
    assert act.report == report(draft, first, "no worse")
    assert store.publish(draft.id, over="whatever", author="Bob") == act  # again: nothing to do
    forced = store.publish(other.id, over=draft.id, author="Bob", force_reason="urgent")
    assert (forced.forced, forced.reason, forced.report) == (True, "urgent", None)
    assert {version.state for version in store.versions()} == {"published"}


def test_who_was_overtaken_is_told_by_whom(store: ClassBookStore, first: Version) -> None:
    mine = store.save(said("a thorn"), message="mine", author="Ada")
    theirs = put(store, "a spike")
    with pytest.raises(
        ClassBookError,
        match=rf"{mine.id} was to replace {first.id}, but Bob published {theirs.id} at 20\d\d-.* \(a test\)"
        rf".*diff published {mine.id}.*checkout published.*--over {theirs.id}",
    ):
        store.publish(mine.id, over=mine.parent, author="Ada", force_reason="mine is better")
    store.publish(mine.id, over=theirs.id, author="Ada", force_reason="mine is better")
    assert store.published() == store.version(mine.id)


def test_rolling_back_goes_down_the_history_and_passes_by_what_is_retired(store: ClassBookStore) -> None:
    one, two, three, four = (put(store, text) for text in ("one", "two", "three", "four"))
    store.retire(three.id, author="Ada", reason="took burrs for spurs")
    assert store.rollback(over=four.id, author="Ada", reason="worse").version == two.id
    with pytest.raises(ClassBookError, match=f"but Ada rolled back to {two.id}"):
        store.rollback(over=four.id, author="Bob", reason="worse")
    with pytest.raises(ClassBookError, match=f"{three.id} is retired; expected one that was published"):
        store.rollback(three.id, over=two.id, author="Ada", reason="worse")
    assert store.rollback(over=two.id, author="Ada", reason="worse").version == one.id
    with pytest.raises(ClassBookError, match=f"no version was published before {one.id}"):
        store.rollback(over=one.id, author="Ada", reason="worse")
    assert store.rollback(four.id, over=one.id, author="Ada", reason="it was right").version == four.id
    assert store.rollback(over=four.id, author="Ada", reason="no").version == one.id
    assert [act.action for act in store.history()] == ["publish"] * 4 + ["retire"] + ["rollback"] * 4


def test_a_retired_version_comes_back_on_a_persons_word_only(store: ClassBookStore, first: Version) -> None:
    draft = store.save(said("a thorn"), message="a thorn", author="Ada")
    act = store.retire(draft.id, author="Ada", reason="wrong")
    assert store.retire(draft.id, author="Bob", reason="again") == act
    assert store.version(draft.id).state == "retired"
    with pytest.raises(ClassBookError, match="is retired"):
        store.publish(draft.id, over=first.id, author="Ada", report=report(draft, first))
    with pytest.raises(ClassBookError, match="is retired"):  # that comes first, for --over would not help
        store.publish(draft.id, over="overtaken", author="Ada", report=report(draft, first))
    with pytest.raises(ClassBookError, match=f"{first.id} is published"):
        store.retire(first.id, author="Ada", reason="wrong")
    store.publish(draft.id, over=first.id, author="Ada", force_reason="it was right after all")
    assert store.version(draft.id).state == "published"


def publisher(path: Path, start: Barrier, version: str, over: str, progress: Any) -> None:
    start.wait(60)
    try:
        progress.put(
            ClassBookStore(path).publish(version, over=over, author=version, force_reason="me").version
        )
    except ClassBookError as error:
        progress.put(error.problem)


def test_of_two_processes_that_publish_at_once_one_wins_and_the_other_is_told(
    store: ClassBookStore, first: Version
) -> None:
    spawn = multiprocessing.get_context("spawn")
    over, progress = first.id, spawn.Queue()
    for number in range(2):
        drafts = [store.save(said(f"{number} {who}"), message="m", author=who).id for who in ("ada", "bob")]
        start = spawn.Barrier(2)
        people = [
            spawn.Process(target=publisher, args=(store.path, start, draft, over, progress))
            for draft in drafts
        ]
        for one in people:
            one.start()
        answers = {progress.get(timeout=120), progress.get(timeout=120)}
        for one in people:
            one.join(60)
        (winner,) = answers & set(drafts)
        (refusal,) = answers - {winner}
        assert f"but {winner} published {winner} at" in refusal
        assert [act.version for act in store.history()].count(winner) == 1
        over = winner
    assert len(store.history()) == 3


def test_versions_never_change(store: ClassBookStore, first: Version) -> None:
    with closing(sqlite3.connect(store.path)) as db:
        for wrong in ("UPDATE versions SET text = 'x'", "DELETE FROM events"):
            with pytest.raises(sqlite3.IntegrityError, match="never change"):
                db.execute(wrong)


def test_a_damaged_version_is_named(store: ClassBookStore, first: Version) -> None:
    with closing(sqlite3.connect(store.path)) as db:
        db.execute("DROP TRIGGER no_UPDATE_of_versions")
        db.execute("UPDATE versions SET text = replace(text, 'copper', 'tin')")
        db.commit()
    with pytest.raises(ClassBookError, match=f"version {first.id} of the class book is damaged"):
        _ = store.version(first.id).book


@pytest.mark.parametrize("how", ["torn", "newer"])
def test_a_file_that_is_not_ours_is_refused_and_left_alone(
    store: ClassBookStore, first: Version, how: str
) -> None:
    if how == "torn":
        store.path.write_bytes(b"torn" * 3000)
    else:
        with closing(sqlite3.connect(store.path)) as db:
            db.execute("PRAGMA user_version = 2")
    before = store.path.read_bytes()
    expected = "cannot be used: file is not a database" if how == "torn" else "is of version 2; expected 1"
    with pytest.raises(WorkspaceError, match=expected):
        store.published()
    with pytest.raises(WorkspaceError, match=expected):
        store.save(said("a thorn"), message="m", author="a")
    assert store.path.read_bytes() == before


def test_what_is_no_class_book_is_not_saved(store: ClassBookStore) -> None:
    with pytest.raises(ClassBookError, match="to be saved, line 1 is not YAML"):
        store.save("{", message="m", author="a")
    with pytest.raises(ClassBookError, match="the message is empty"):
        store.save(FIRST.as_yaml(), message=" ", author="a")
    assert not store.path.exists()
