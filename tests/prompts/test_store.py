"""Version store of the class book: immutable versions, published on a report or with a reason."""

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
from prompts.store_file import FORMAT_VERSION

FIRST = glossary_book(["spur", "short"])


def yaml_with(text: str) -> str:
    """YAML of the first book with another description of the spur, and a comment."""
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


def save_and_publish(store: ClassBookStore, text: str) -> Version:
    before = store.published()
    version = store.save(yaml_with(text), message=text, author="Bob")
    store.publish(version.id, over=before and before.id, author="Bob", force_reason="a test")
    return version


def test_new_store_is_empty(store: ClassBookStore) -> None:
    assert (store.versions(), store.history(), store.published()) == ([], [], None)
    assert not store.path.exists()
    with pytest.raises(ClassBookError, match="'abc'"):
        store.version("abc")


def test_version_keeps_the_yaml_and_equal_content_is_saved_once(
    store: ClassBookStore, first: Version
) -> None:
    saved = store.save(yaml_with("a thorn"), message="a thorn", author="Ada")
    again = store.save(yaml_with("a thorn") + "# more\n", message="another message", author="Bob")
    assert again == saved
    assert (saved.text, saved.parent, saved.state) == (yaml_with("a thorn"), first.id, "draft")
    assert saved.book.entry("spur").description == "a thorn"
    assert [v.id for v in store.versions()] == [first.id, saved.id]
    assert store.version(saved.id[:5]) == saved


@settings(max_examples=15, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=40), min_size=1, max_size=4))
def test_round_trip_keeps_content_and_version(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    store = ClassBookStore(tmp_path_factory.mktemp("store") / "books.sqlite")
    for text in texts:
        try:
            book = FIRST.with_description("spur", text, "person", "Ada")
        except ClassBookError:
            continue  # control characters, or spaces only
        saved = store.save(book.as_yaml(), message="m", author="a")
        assert saved.id == book.version == saved.book.version
        assert store.version(saved.id).book == book
        assert store.save(saved.book.as_yaml(), message="m", author="a") == saved


def test_publishing_needs_a_suitable_report_or_a_reason(store: ClassBookStore, first: Version) -> None:
    draft, other = (store.save(yaml_with(t), message=t, author="Ada") for t in ("a thorn", "a spike"))
    refusals = [
        (None, draft.id),
        (report(other, first), f"{other.id}.*{draft.id}"),
        (report(draft, other), f"{other.id}.*{first.id}"),
        (report(draft, first, "worse"), f"{draft.id} .*'worse'.*mAP 0.1 higher"),
        (report(draft, first, "undecided"), "'undecided'"),
    ]
    for unsuitable, values in refusals:
        with pytest.raises(ClassBookError, match=f"{values}.*--force"):
            store.publish(draft.id, over=first.id, author="Ada", report=unsuitable)
    for empty in ("", "  "):
        with pytest.raises(ClassBookError, match="reason"):
            store.publish(draft.id, over=first.id, author="Ada", force_reason=empty)
    assert store.published() == store.version(first.id)
    allowing = report(draft, first, "no worse")
    event = store.publish(draft.id, over=first.id, author="Ada", report=allowing)
    assert (event.version, event.before, event.forced) == (draft.id, first.id, False)
    assert (event.reason, event.report) == ("mAP 0.1 higher", allowing)
    assert store.history()[-1] == event
    assert store.publish(draft.id, over="whatever", author="Bob") == event  # published already
    forced = store.publish(other.id, over=draft.id, author="Bob", force_reason="urgent")
    assert (forced.forced, forced.reason, forced.report) == (True, "urgent", None)
    assert {version.state for version in store.versions()} == {"published"}


def test_publishing_over_an_outdated_version_is_refused(store: ClassBookStore, first: Version) -> None:
    mine = store.save(yaml_with("a thorn"), message="mine", author="Ada")
    theirs = save_and_publish(store, "a spike")
    with pytest.raises(
        ClassBookError,
        match=rf"{mine.id} .*{first.id}.* Bob published {theirs.id} at 20\d\d-.* \(a test\)"
        rf".*diff published {mine.id}.*checkout published.*--over {theirs.id}",
    ):
        store.publish(mine.id, over=mine.parent, author="Ada", force_reason="mine is better")
    store.publish(mine.id, over=theirs.id, author="Ada", force_reason="mine is better")
    assert store.published() == store.version(mine.id)


def test_rollback_follows_the_history_and_skips_retired_versions(store: ClassBookStore) -> None:
    one, two, three, four = (save_and_publish(store, text) for text in ("one", "two", "three", "four"))
    store.retire(three.id, author="Ada", reason="took burrs for spurs")
    assert store.rollback(over=four.id, author="Ada", reason="worse").version == two.id
    with pytest.raises(ClassBookError, match=f"Ada rolled back to {two.id}"):
        store.rollback(over=four.id, author="Bob", reason="worse")
    with pytest.raises(ClassBookError, match=f"{three.id} is retired"):
        store.rollback(three.id, over=two.id, author="Ada", reason="worse")
    assert store.rollback(over=two.id, author="Ada", reason="worse").version == one.id
    with pytest.raises(ClassBookError, match=one.id):
        store.rollback(over=one.id, author="Ada", reason="worse")
    assert store.rollback(four.id, over=one.id, author="Ada", reason="it was right").version == four.id
    assert store.rollback(over=four.id, author="Ada", reason="no").version == one.id
    assert [e.action for e in store.history()] == ["publish"] * 4 + ["retire"] + ["rollback"] * 4


def test_retired_version_needs_a_reason_to_be_published(store: ClassBookStore, first: Version) -> None:
    draft = store.save(yaml_with("a thorn"), message="a thorn", author="Ada")
    event = store.retire(draft.id, author="Ada", reason="wrong")
    assert store.retire(draft.id, author="Bob", reason="again") == event
    assert store.version(draft.id).state == "retired"
    with pytest.raises(ClassBookError, match=f"{draft.id} is retired"):
        store.publish(draft.id, over=first.id, author="Ada", report=report(draft, first))
    with pytest.raises(ClassBookError, match=f"{draft.id} is retired"):  # before the outdated --over
        store.publish(draft.id, over="outdated", author="Ada", report=report(draft, first))
    with pytest.raises(ClassBookError, match=f"{first.id} is published"):
        store.retire(first.id, author="Ada", reason="wrong")
    store.publish(draft.id, over=first.id, author="Ada", force_reason="it was right after all")
    assert store.version(draft.id).state == "published"


def publish_in_process(path: Path, start: Barrier, version: str, over: str, results: Any) -> None:
    """Put the published version into ``results``, or the problem."""
    start.wait(60)
    try:
        event = ClassBookStore(path).publish(version, over=over, author=version, force_reason="me")
        results.put(event.version)
    except ClassBookError as error:
        results.put(error.problem)


def test_one_of_two_simultaneous_publications_is_refused(store: ClassBookStore, first: Version) -> None:
    spawn = multiprocessing.get_context("spawn")
    over, results = first.id, spawn.Queue()
    for number in range(2):
        drafts = [
            store.save(yaml_with(f"{number} {author}"), message="m", author=author).id
            for author in ("ada", "bob")
        ]
        start = spawn.Barrier(2)
        processes = [
            spawn.Process(target=publish_in_process, args=(store.path, start, draft, over, results))
            for draft in drafts
        ]
        for process in processes:
            process.start()
        outcomes = {results.get(timeout=120), results.get(timeout=120)}
        for process in processes:
            process.join(60)
        (published,) = outcomes & set(drafts)
        (problem,) = outcomes - {published}
        assert f"{published} published {published} at" in problem
        assert [e.version for e in store.history()].count(published) == 1
        over = published
    assert len(store.history()) == 3


def test_versions_and_events_cannot_be_changed(store: ClassBookStore, first: Version) -> None:
    with closing(sqlite3.connect(store.path)) as db:
        for statement in ("UPDATE versions SET text = 'x'", "DELETE FROM events"):
            with pytest.raises(sqlite3.IntegrityError):
                db.execute(statement)


def test_damaged_version_is_named(store: ClassBookStore, first: Version) -> None:
    with closing(sqlite3.connect(store.path)) as db:
        db.execute("DROP TRIGGER no_UPDATE_of_versions")
        db.execute("UPDATE versions SET text = replace(text, 'copper', 'tin')")
        db.commit()
    with pytest.raises(ClassBookError, match=first.id):
        _ = store.version(first.id).book


@pytest.mark.parametrize("damage", ["not a database", "older", "newer"])
def test_file_of_another_format_is_refused_and_not_changed(
    store: ClassBookStore, first: Version, damage: str
) -> None:
    if damage == "not a database":
        store.path.write_bytes(b"torn" * 3000)
    else:
        other = FORMAT_VERSION + (1 if damage == "newer" else -1)
        with closing(sqlite3.connect(store.path)) as db:
            db.execute(f"PRAGMA user_version = {other}")
    before = store.path.read_bytes()
    with pytest.raises(WorkspaceError, match=r"books\.sqlite"):
        store.published()
    with pytest.raises(WorkspaceError, match=r"books\.sqlite"):
        store.save(yaml_with("a thorn"), message="m", author="a")
    assert store.path.read_bytes() == before


def test_invalid_class_book_or_empty_message_is_not_saved(store: ClassBookStore) -> None:
    with pytest.raises(ClassBookError, match="line 1"):
        store.save("{", message="m", author="a")
    with pytest.raises(ClassBookError, match="message"):
        store.save(FIRST.as_yaml(), message=" ", author="a")
    assert not store.path.exists()
