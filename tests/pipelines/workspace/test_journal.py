"""The journal: writes are idempotent, the latest annotation counts, no image is sent twice."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dsmoe_core.errors import WorkspaceError
from dsmoe_core.schema import Annotation, Arm, Box, Harvest, ImageRecord, Outcome
from pipelines.settings.validation import FORMAT_VERSION
from pipelines.workspace import database
from pipelines.workspace.journal import Journal, SentTask

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal.at(tmp_path / "journal.sqlite")


def harvest(key: str, minute: int, *labels: str, skipped: bool = False, number: int = 1) -> Harvest:
    boxes = tuple(Annotation(Box(0.0, 0.0, 5.0, 5.5), label) for label in labels)
    moment = NOON + timedelta(minutes=minute)
    return Harvest(key, boxes, number, moment, skipped, {Outcome.ADDED: len(labels)}, "m+b", 1.5)


def test_latest_state_of_an_annotation_counts_in_any_order(journal: Journal) -> None:
    old, new = harvest("a", 1, "spur"), harvest("a", 2, "short", "short")
    journal.record_harvests([new, old])
    assert journal.harvests() == {"a": new}
    assert journal.last_harvest() == new.updated_at


def test_annotation_replaces_an_imported_label(journal: Journal) -> None:
    journal.record_harvests([harvest("a", -100, "spur", number=0)], source="import")
    assert journal.last_harvest() is None
    journal.record_harvests([harvest("a", 1, "short")])
    assert [a.label for a in journal.harvests()["a"].annotations] == ["short"]


def test_image_stays_in_the_round_it_was_first_sent_in(journal: Journal) -> None:
    journal.plan_tasks([SentTask("a", 0, Arm.SEED, 0)])
    ranked = SentTask("a", 1, Arm.RANKED, 0, "entropy", 0.5, "m+b")
    random = SentTask("b", 1, Arm.RANDOM, 1, "entropy", 0.1, "m+b")
    journal.plan_tasks([ranked, random])
    assert journal.tasks() == [SentTask("a", 0, Arm.SEED, 0), random]
    journal.mark_sent({"b": 17})
    assert journal.tasks(1) == [replace(random, task_id=17)]


def test_test_image_never_becomes_part_of_the_pool(journal: Journal, tmp_path: Path) -> None:
    image = ImageRecord("k", "a.png", tmp_path / "images" / "k.png", 4, 5)
    journal.add_images([image], "test", tmp_path)
    journal.add_images([image], "pool", tmp_path)
    assert journal.images(tmp_path, "pool") == []
    assert journal.images(tmp_path, "test") == [image]


def test_step_is_done_when_it_is_finished(journal: Journal) -> None:
    journal.begin(0, "train")
    assert journal.finished(0, "train") is None
    journal.begin(0, "train")
    journal.finish(0, "train", {"model": "r0"})
    assert journal.finished(0, "train") == {"model": "r0"}
    assert journal.steps() == [(0, "train", 2, True)]


def test_closed_round_keeps_its_result(journal: Journal) -> None:
    journal.start_round(0, None, "book")
    journal.finish_round(0, {"map": 0.5})
    journal.finish_round(0, {"map": 0.9})
    (record,) = journal.rounds()
    assert (record.state, record.class_book, record.result) == ("closed", "book", {"map": 0.5})


def test_file_that_is_not_a_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_text("not a database, and longer than the header of one" * 40)
    with pytest.raises(WorkspaceError, match="journal"):
        Journal.at(tmp_path / "journal.sqlite")


def test_journal_locked_by_another_process_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal.sqlite"
    impatient = "PRAGMA busy_timeout=0"
    monkeypatch.setattr(database, "_set_sqlite_pragmas", lambda connection, _: connection.execute(impatient))
    with closing(Journal.at(path)) as journal, closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(WorkspaceError, match="database is locked"):
            journal.set_value("a", 1)
        other.rollback()
        journal.set_value("a", 1)
        assert journal.value("a") == 1


def test_journal_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    with closing(Journal.at(tmp_path / "journal.sqlite")) as journal:
        journal.set_value("format_version", 99)
    with pytest.raises(WorkspaceError, match=rf"99.*{FORMAT_VERSION}"):
        Journal.at(tmp_path / "journal.sqlite")


def test_journal_of_version_1_is_refused_and_left_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with closing(sqlite3.connect(path)) as old, old:
        old.execute("CREATE TABLE facts (name VARCHAR(64) PRIMARY KEY, value JSON NOT NULL)")
        old.execute("INSERT INTO facts VALUES ('schema_version', '1')")
        old.execute("CREATE TABLE pictures (key VARCHAR(64) PRIMARY KEY)")
    with pytest.raises(WorkspaceError, match=rf"version 1.*{FORMAT_VERSION}") as error:
        Journal.at(path)
    assert "`dsmoe init`" in error.value.remedy
    with closing(sqlite3.connect(path)) as old:
        tables = {name for (name,) in old.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables == {"facts", "pictures"}


def test_doubt_note_annotators_and_agreement_are_kept(journal: Journal) -> None:
    doubtful = replace(
        harvest("a", 1, "spur"), doubt="unsure", note="rust, or [red] paint?", annotators=2, agreement=0.5
    )
    journal.record_harvests([doubtful])
    assert journal.harvests() == {"a": doubtful}
    assert not journal.harvests()["a"].labelled


def test_unchanged_annotation_is_not_recorded_again(journal: Journal) -> None:
    first = harvest("a", 1, "spur")
    journal.record_harvests([first])
    journal.record_harvests([replace(first, updated_at=first.updated_at + timedelta(minutes=5))])
    assert journal.harvests() == {"a": first}


def test_withdrawn_annotation_is_gone_and_one_that_never_existed_is_ignored(journal: Journal) -> None:
    annotated, later = harvest("a", 1, "spur"), NOON + timedelta(minutes=2)
    withdrawn = Harvest("a", (), 0, later, False, {}, None, None, annotators=0)
    journal.record_harvests([annotated, replace(withdrawn, key="never")])
    journal.record_harvests([withdrawn])
    assert journal.harvests() == {}
    assert journal.last_harvest() == later
    new = harvest("a", 3, "short")
    journal.record_harvests([new])
    assert journal.harvests() == {"a": new}


def test_change_dated_before_the_known_state_counts(journal: Journal) -> None:
    """The clock of the labelling server was set back in between."""
    journal.record_harvests([harvest("a", 60, "spur")])
    changed = harvest("a", 5, "short")
    journal.record_harvests([changed])
    journal.record_harvests([changed])  # harvests overlap
    (state,) = journal.harvests().values()
    assert state == replace(changed, updated_at=NOON + timedelta(minutes=60, microseconds=1))


def test_earlier_state_that_is_in_effect_again_counts(journal: Journal) -> None:
    """The database of the labelling server was restored from a backup."""
    old, new = harvest("a", 1, "spur"), harvest("a", 2, "short")
    journal.record_harvests([old])
    journal.record_harvests([new])
    for _ in range(2):
        journal.record_harvests([old])
        assert journal.harvests() == {
            "a": replace(old, updated_at=new.updated_at + timedelta(microseconds=1))
        }
