"""What labelling costs: seconds by what had to be done; doubts and second opinions in the rounds."""

from __future__ import annotations

from datetime import UTC, datetime

from dsmoe_core.schema import Harvest, Outcome
from pipelines.workspace.annotation_time import ALL, NOTHING, SKIPPED, Effort, effort
from pipelines.workspace.journal import SentTask
from pipelines.workspace.round_summary import Note, count_round, notes

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def harvest(key: str, seconds: float | None, skipped: bool = False, **counts: int) -> Harvest:
    outcomes = {Outcome(name): count for name, count in counts.items()}
    return Harvest(key, (), 1, NOON, skipped, outcomes, "m+b", seconds)


def doubt(key: str, word: str | None, note: str, agreement: float | None = None) -> Harvest:
    return Harvest(key, (), 1, NOON, False, {}, None, 9.0, word, note, 2, agreement)


def sent(key: str, rank: int) -> SentTask:
    return SentTask(key, 0, "seed", rank, None, None, 100 + rank)


def test_a_image_counts_under_the_most_laborious_thing_done_on_it() -> None:
    found = effort(
        [
            harvest("a", 4.0, accepted=2),
            harvest("b", 6.0, accepted=1, moved=1),
            harvest("c", 30.0, accepted=4, moved=1, added=5),
            harvest("d", 2.0),
            harvest("e", 1.0, skipped=True),
            harvest("f", None, accepted=9),
        ]
    )
    assert found == {
        ALL: Effort(4, 5.0, 3.0),
        "accepted": Effort(1, 4.0, 2.0),
        "moved": Effort(1, 6.0, 3.0),
        "added": Effort(1, 30.0, 3.0),
        NOTHING: Effort(1, 2.0, None),
        SKIPPED: Effort(1, 1.0, None),
    }


def test_someone_who_left_the_desk_does_not_spoil_the_figure() -> None:
    times = [4.0, 5.0, 3600.0]
    assert effort(harvest(str(t), t, accepted=1) for t in times)["accepted"] == Effort(3, 5.0, 5.0)


def test_a_program_spends_no_effort() -> None:
    assert effort([harvest("a", 0.0003, accepted=1)]) == {}


def test_a_doubtful_image_is_answered_and_not_labelled() -> None:
    back = {"a": doubt("a", "unsure", "", 0.5), "b": doubt("b", None, "", 1.0)}
    counts = count_round([sent("a", 0), sent("b", 1), sent("c", 2)], back)
    shown = {name: counts[name] for name in ("sent", "answered", "new_images", "doubtful", "agreement")}
    assert shown == {"sent": 3, "answered": 2, "new_images": 1, "doubtful": 1, "agreement": 0.75}


def test_the_expert_finds_doubts_first_then_notes() -> None:
    back = {h.key: h for h in (doubt("a", None, "see here"), doubt("b", "unsure", ""), doubt("c", None, ""))}
    assert notes([sent("a", 0), sent("b", 1), sent("c", 2), sent("d", 3)], back) == [
        Note("b", 0, 101, "unsure", ""),
        Note("a", 0, 100, None, "see here"),
    ]
