"""The journal: writing twice changes nothing, the latest annotation counts, no image is sent twice."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dsmoe_core.errors import WorkspaceError
from dsmoe_core.schema import Annotation, Box, Harvest, ImageRecord, Outcome
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


def test_the_latest_state_of_an_annotation_counts_in_whatever_order_it_came(journal: Journal) -> None:
    old, new = harvest("a", 1, "spur"), harvest("a", 2, "short", "short")
    journal.record_harvests([new, old])
    assert journal.harvests() == {"a": new}
    assert journal.last_harvest() == new.updated_at


def test_imported_labels_give_way_to_what_people_say(journal: Journal) -> None:
    journal.record_harvests([harvest("a", -100, "spur", number=0)], source="import")
    assert journal.last_harvest() is None
    journal.record_harvests([harvest("a", 1, "short")])
    assert [a.label for a in journal.harvests()["a"].annotations] == ["short"]


def test_a_image_stays_in_the_round_it_was_first_sent_in(journal: Journal) -> None:
    journal.plan_tasks([SentTask("a", 0, "seed", 0, None, None)])
    journal.plan_tasks([SentTask("a", 1, "ranked", 0, 0.5, "m+b"), SentTask("b", 1, "random", 1, 0.1, "m+b")])
    assert [(t.key, t.round) for t in journal.tasks()] == [("a", 0), ("b", 1)]
    journal.mark_sent({"b": 17})
    assert journal.tasks(1)[0].task_id == 17


def test_a_test_image_never_becomes_part_of_the_pool(journal: Journal, tmp_path: Path) -> None:
    image = ImageRecord("k", "a.png", tmp_path / "images" / "k.png", 4, 5)
    journal.add_images([image], "test", tmp_path)
    journal.add_images([image], "pool", tmp_path)
    assert journal.images(tmp_path, "pool") == []
    assert journal.images(tmp_path, "test") == [image]


def test_a_step_is_done_only_when_it_is_finished(journal: Journal) -> None:
    journal.begin(0, "train")
    assert journal.finished(0, "train") is None
    journal.begin(0, "train")
    journal.finish(0, "train", {"model": "r0"})
    assert journal.finished(0, "train") == {"model": "r0"}
    assert journal.steps() == [(0, "train", 2, True)]


def test_a_closed_round_keeps_its_figures(journal: Journal) -> None:
    journal.start_round(0, None)
    journal.finish_round(0, {"map": 0.5})
    journal.finish_round(0, {"map": 0.9})
    (record,) = journal.rounds()
    assert (record.state, record.result) == ("closed", {"map": 0.5})


def test_what_is_no_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_text("not a database, and long enough to be looked at as one" * 40)
    with pytest.raises(WorkspaceError, match="journal"):
        Journal.at(tmp_path / "journal.sqlite")


def test_a_journal_that_another_process_writes_to_says_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal.sqlite"
    impatient = "PRAGMA busy_timeout=0"
    monkeypatch.setattr(database, "_sqlite_pragmas", lambda connection, _: connection.execute(impatient))
    with closing(Journal.at(path)) as journal, closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(WorkspaceError, match="database is locked, for another process writes") as caught:
            journal.set_fact("a", 1)
        assert caught.value.remedy.startswith("Wait until that is done and run the same command again")
        other.rollback()
        journal.set_fact("a", 1)


def test_a_journal_of_another_version_is_refused(tmp_path: Path) -> None:
    journal = Journal.at(tmp_path / "journal.sqlite")
    journal.set_fact("schema_version", 99)
    journal.close()
    with pytest.raises(WorkspaceError, match="version 99; expected 1"):
        Journal.at(tmp_path / "journal.sqlite")


def test_what_is_doubted_is_remembered_with_its_note(journal: Journal) -> None:
    doubted = replace(
        harvest("a", 1, "spur"), doubt="unsure", note="rust, or [red] paint?", annotators=2, agreement=0.5
    )
    journal.record_harvests([doubted])
    assert journal.harvests() == {"a": doubted}
    assert not journal.harvests()["a"].labelled


def test_what_says_nothing_new_is_not_written_again(journal: Journal) -> None:
    first = harvest("a", 1, "spur")
    journal.record_harvests([first])
    journal.record_harvests([replace(first, updated_at=first.updated_at + timedelta(minutes=5))])
    assert journal.harvests() == {"a": first}


def test_an_answer_taken_back_is_gone_and_one_never_given_is_no_news(journal: Journal) -> None:
    given, later = harvest("a", 1, "spur"), NOON + timedelta(minutes=2)
    nothing = Harvest("a", (), 0, later, False, {}, None, None, annotators=0)
    journal.record_harvests([given, replace(nothing, key="never")])
    journal.record_harvests([nothing])
    assert journal.harvests() == {}
    assert journal.last_harvest() == later
    again = harvest("a", 3, "short")
    journal.record_harvests([again])
    assert journal.harvests() == {"a": again}


def test_a_change_dated_before_what_it_changes_counts(journal: Journal) -> None:
    """The server's clock was put back in between."""
    journal.record_harvests([harvest("a", 60, "spur")])
    changed = harvest("a", 5, "short")
    journal.record_harvests([changed])
    journal.record_harvests([changed])  # the overlap brings it again
    (kept,) = journal.harvests().values()
    assert kept == replace(changed, updated_at=NOON + timedelta(minutes=60, microseconds=1))


def test_a_state_that_holds_again_counts_again(journal: Journal) -> None:
    """The server's database was put back from a backup."""
    old, new = harvest("a", 1, "spur"), harvest("a", 2, "short")
    journal.record_harvests([old])
    journal.record_harvests([new])
    for _ in range(2):
        journal.record_harvests([old])
        assert journal.harvests() == {
            "a": replace(old, updated_at=new.updated_at + timedelta(microseconds=1))
        }


def test_a_journal_from_before_there_were_remarks_opens_and_takes_them(tmp_path: Path) -> None:
    path, old = tmp_path / "journal.sqlite", harvest("a", 1, "spur")
    with closing(Journal.at(path)) as journal:
        journal.record_harvests([old])
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE remarks")
    with closing(Journal.at(path)) as journal:
        assert journal.harvests() == {"a": old}
        doubted = replace(old, updated_at=NOON + timedelta(hours=1), doubt="unsure")
        journal.record_harvests([doubted])
        assert journal.harvests() == {"a": doubted}
