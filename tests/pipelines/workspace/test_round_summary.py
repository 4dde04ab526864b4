"""Rounds in words: which model stays champion, and why."""

from __future__ import annotations

from datetime import UTC, datetime

from pipelines.workspace.journal import RoundRecord
from pipelines.workspace.round_summary import count_round, explain_rounds, summarize_rounds

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def judged(number: int, value: float, promoted: bool, reason: str = "") -> RoundRecord:
    result = {"counts": count_round([], {}), "map": value, "promoted": promoted, "reason": reason}
    return RoundRecord(number, "closed", None, NOON, NOON, result)


def test_a_round_is_measured_by_the_last_model_that_was_promoted() -> None:
    little = "refused: mAP 0.320 is not above the champion's 0.300 + 0.050"
    records = [
        judged(0, 0.3, True),
        judged(1, 0.32, False, little),
        judged(2, 0.25, False),
        judged(3, 0.4, True),
        judged(4, 0.35, False),
    ]
    gained, lost, late = explain_rounds(summarize_rounds(records, [], {}))
    assert gained == f"Round 1's model did not become champion; {little}."
    assert "(mAP@.5:.95 0.250) is not better than round 0 (0.300)" in lost
    assert lost.endswith("the model lost 0.050 on the test set, so round 0's model stays champion.")
    assert "(mAP@.5:.95 0.350) is not better than round 3 (0.400)" in late
