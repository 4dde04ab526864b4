"""Annotation effort by kind of correction; doubts, agreement and notes of rounds."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest

from dsmoe_core.schema import Arm, Harvest, Outcome
from pipelines.workspace.annotation_time import (
    ALL,
    DEFAULT_SECONDS,
    IMAGE,
    NOTHING,
    SKIPPED,
    CorrectionSeconds,
    Effort,
    correction_seconds,
    effort,
    seconds_by_kind,
)
from pipelines.workspace.journal import SentTask
from pipelines.workspace.round_summary import Note, count_round, notes

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def harvest(key: str, seconds: float | None, skipped: bool = False, **counts: int) -> Harvest:
    outcomes = {Outcome(name): count for name, count in counts.items()}
    return Harvest(key, (), 1, NOON, skipped, outcomes, "m+b", seconds)


def feedback(key: str, doubt: str | None, note: str, agreement: float | None = None) -> Harvest:
    return Harvest(key, (), 1, NOON, False, {}, None, 9.0, doubt, note, 2, agreement)


def sent(key: str, rank: int) -> SentTask:
    return SentTask(key, 0, Arm.SEED, rank, task_id=100 + rank)


def test_image_counts_under_its_most_laborious_correction() -> None:
    efforts = effort(
        [
            harvest("a", 4.0, accepted=2),
            harvest("b", 6.0, accepted=1, moved=1),
            harvest("c", 30.0, accepted=4, moved=1, added=5),
            harvest("d", 2.0),
            harvest("e", 1.0, skipped=True),
            harvest("f", None, accepted=9),
        ]
    )
    assert efforts == {
        ALL: Effort(4, 5.0, 3.0),
        "accepted": Effort(1, 4.0, 2.0),
        "moved": Effort(1, 6.0, 3.0),
        "added": Effort(1, 30.0, 3.0),
        NOTHING: Effort(1, 2.0, None),
        SKIPPED: Effort(1, 1.0, None),
    }


def test_break_of_an_annotator_does_not_change_the_median() -> None:
    times = [4.0, 5.0, 3600.0]
    assert effort(harvest(str(t), t, accepted=1) for t in times)["accepted"] == Effort(3, 5.0, 5.0)


def test_time_of_a_simulated_annotator_does_not_count() -> None:
    assert effort([harvest("a", 0.0003, accepted=1)]) == {}


def test_doubtful_image_is_answered_and_not_labelled() -> None:
    harvests = {"a": feedback("a", "unsure", "", 0.5), "b": feedback("b", None, "", 1.0)}
    counts = count_round([sent("a", 0), sent("b", 1), sent("c", 2)], harvests)
    selected = {name: counts[name] for name in ("sent", "answered", "new_images", "doubtful", "agreement")}
    assert selected == {"sent": 3, "answered": 2, "new_images": 1, "doubtful": 1, "agreement": 0.75}


def test_notes_list_doubtful_images_first() -> None:
    answered = (feedback("a", None, "see here"), feedback("b", "unsure", ""), feedback("c", None, ""))
    harvests = {harvest.key: harvest for harvest in answered}
    assert notes([sent("a", 0), sent("b", 1), sent("c", 2), sent("d", 3)], harvests) == [
        Note("b", 0, 101, "unsure", ""),
        Note("a", 0, 100, None, "see here"),
    ]


def test_seconds_by_kind_without_times_are_the_defaults() -> None:
    assert seconds_by_kind([]) == pytest.approx(DEFAULT_SECONDS)


def test_seconds_by_kind_are_learned_from_many_images() -> None:
    true = {IMAGE: 4.0, Outcome.ACCEPTED: 0.5, Outcome.MOVED: 8.0, Outcome.RELABELLED: 3.0}
    true |= {Outcome.DELETED: 1.0, Outcome.ADDED: 15.0}
    rng = random.Random(0)
    images = []
    for i in range(300):
        outcomes = {o: rng.randrange(4) for o in Outcome}
        seconds = true[IMAGE] + sum(true[o] * n for o, n in outcomes.items())
        images.append(harvest(f"i{i}", seconds, **outcomes))
    images.append(harvest("break", 10_000.0))
    assert seconds_by_kind(images) == pytest.approx(true, abs=0.5)


def test_correction_seconds_count_the_timed_images_of_people() -> None:
    times = [harvest("a", 30.0, added=3), harvest("b", None, added=1), harvest("c", 0.001, accepted=1)]
    found = correction_seconds(times)
    assert found.images == 1
    assert found.added == pytest.approx(seconds_by_kind(times)[Outcome.ADDED], abs=0.01)
    assert found.total({Outcome.ADDED: 2, Outcome.MOVED: 1}) == pytest.approx(2 * found.added + found.moved)
    assert correction_seconds([]) == CorrectionSeconds()
