"""The explanation of rounds whose model was not promoted or is not better."""

from __future__ import annotations

from datetime import UTC, datetime

from pipelines.workspace.journal import RoundRecord
from pipelines.workspace.round_summary import count_round, explain_rounds, summarize_rounds

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def closed(number: int, value: float, promoted: bool, reason: str = "") -> RoundRecord:
    result = {"counts": count_round([], {}), "map": value, "promoted": promoted, "reason": reason}
    return RoundRecord(number, "closed", None, NOON, NOON, result)


def test_round_is_compared_with_the_last_promoted_model() -> None:
    reason = "refused: mAP 0.320 is not above the champion's 0.300 + 0.050"
    records = [
        closed(0, 0.3, True),
        closed(1, 0.32, False, reason),
        closed(2, 0.25, False),
        closed(3, 0.4, True),
        closed(4, 0.35, False),
    ]
    too_small, worse, late = explain_rounds(summarize_rounds(records, [], {}))
    assert "Round 1" in too_small
    assert reason in too_small
    for value in ("Round 2", "0.250", "round 0", "0.300", "0.050"):
        assert value in worse
    for value in ("Round 4", "0.350", "round 3", "0.400"):
        assert value in late


def test_rounds_that_gain_are_not_explained() -> None:
    records = [closed(0, 0.3, True), closed(1, 0.4, True)]
    assert explain_rounds(summarize_rounds(records, [], {})) == []
