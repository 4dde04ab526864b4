"""The policy: each check by a table, and the decision over all of them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.rounds.policy import POLICY_CHECKS, DriftSignal, PolicySnapshot, decide
from pipelines.settings.policy import PolicySettings

NOW = datetime(2026, 11, 30, 23, 30, tzinfo=UTC)  # a Monday
OPEN = PolicySnapshot(NOW, round=2, state="open", sent=4, answered=1, unlabelled=9, new_boxes=3, new_images=1)
ANSWERED = replace(OPEN, answered=4, new_images=4)
CHANGE = DriftSignal("uncertainty", "a.png", 0.2, 0.4)


def hours_ago(hours: float) -> datetime:
    return NOW - timedelta(hours=hours)


@pytest.mark.parametrize(
    ("name", "snapshot", "settings", "verdict"),
    [
        ("all_answered", {}, {}, False),
        ("all_answered", {"answered": 4}, {}, True),
        ("all_answered", {"answered": 0, "sent": 0}, {}, False),
        ("all_answered", {"answered": 4}, {"all_answered": False, "new_boxes": 9}, None),
        ("new_boxes", {}, {}, None),
        ("new_boxes", {"new_boxes": 7}, {"new_boxes": 8}, False),
        ("new_boxes", {"new_boxes": 8}, {"new_boxes": 8}, True),
        ("champion_age", {"champion_since": hours_ago(9)}, {}, None),
        ("champion_age", {"champion_since": hours_ago(9)}, {"champion_age_h": 9}, False),
        ("champion_age", {"champion_since": hours_ago(9.1)}, {"champion_age_h": 9}, True),
        ("champion_age", {}, {"champion_age_h": 9}, False),
        ("drift", {"drift": (CHANGE,)}, {}, None),
        ("drift", {}, {"drift": True}, False),
        ("drift", {"drift": (CHANGE,)}, {"drift": True}, True),
        ("class_boxes", {"class_boxes": {"a": 3, "b": 1}}, {}, None),
        ("class_boxes", {"class_boxes": {"a": 3, "b": 1}}, {"min_class_boxes": 2}, False),
        ("class_boxes", {"class_boxes": {"a": 3, "b": 2}}, {"min_class_boxes": 2}, True),
        ("class_boxes", {"class_boxes": {"a": 0}, "answered": 4}, {"min_class_boxes": 2}, True),
        ("new_labels", {"new_images": 0}, {}, False),
        ("new_labels", {"new_images": 1}, {}, True),
        ("new_labels", {"new_images": 0, "answered": 4}, {}, True),
        ("time_window", {}, {}, None),
        ("time_window", {}, {"windows": ("sat-sun", "22:00-06:00")}, True),
        ("time_window", {}, {"windows": ("sat-sun", "08:00-12:00")}, False),
        ("cooldown", {"last_closed": hours_ago(2)}, {}, None),
        ("cooldown", {"last_closed": hours_ago(2)}, {"cooldown_h": 2}, True),
        ("cooldown", {"last_closed": hours_ago(1.9)}, {"cooldown_h": 2}, False),
        ("cooldown", {}, {"cooldown_h": 2}, True),
        ("approval", {}, {}, None),
        ("approval", {}, {"approval": True}, False),
        ("approval", {"approved_round": 1}, {"approval": True}, False),
        ("approval", {"approved_round": 2}, {"approval": True}, True),
        ("nothing_held", {}, {}, True),
        ("nothing_held", {"held": "r1-12345678"}, {}, False),
    ],
)
def test_check(name: str, snapshot: dict[str, Any], settings: dict[str, Any], verdict: bool | None) -> None:
    check = POLICY_CHECKS[name](replace(OPEN, **snapshot), PolicySettings(**settings))
    assert check.name == name
    assert check.verdict is verdict
    assert check.reason
    assert check.kind in ("trigger", "requirement")


@pytest.mark.parametrize(
    ("snapshot", "settings", "action", "partial"),
    [
        (PolicySnapshot(NOW), {}, "idle", False),
        (PolicySnapshot(NOW, unlabelled=3), {}, "open", False),
        (PolicySnapshot(NOW, unlabelled=3, held="r1-12345678"), {}, "wait", False),
        (replace(ANSWERED, state="closed"), {}, "open", False),
        (replace(ANSWERED, state="closed", unlabelled=0), {}, "idle", False),
        (replace(OPEN, state="opening", unlabelled=0), {}, "open", False),
        (OPEN, {}, "wait", False),
        (ANSWERED, {}, "close", False),
        (OPEN, {"new_boxes": 3}, "close", True),
        (OPEN, {"new_boxes": 4}, "wait", False),
        (replace(OPEN, drift=(CHANGE,)), {"drift": True}, "close", True),
        (replace(OPEN, new_images=0, drift=(CHANGE,)), {"drift": True}, "wait", False),
        (ANSWERED, {"windows": ("08:00-12:00",)}, "wait", False),
        (ANSWERED, {"approval": True}, "wait", False),
        (replace(ANSWERED, approved_round=2), {"approval": True}, "close", False),
        (replace(ANSWERED, last_closed=hours_ago(1)), {"cooldown_h": 5}, "wait", False),
        (replace(OPEN, state="closing"), {"approval": True, "cooldown_h": 5}, "close", False),
        (replace(OPEN, state="closing"), {"windows": ("08:00-12:00",)}, "wait", False),
    ],
)
def test_decision(snapshot: PolicySnapshot, settings: dict[str, Any], action: str, partial: bool) -> None:
    decision = decide(snapshot, PolicySettings(**settings))
    assert (decision.action, decision.partial) == (action, partial)
    assert json.loads(json.dumps(decision.as_dict()))["action"] == action


snapshots = st.builds(
    PolicySnapshot,
    now=st.datetimes(timezones=st.just(UTC)),
    round=st.just(3),
    state=st.just("open"),
    sent=st.integers(1, 9),
    answered=st.integers(0, 9),
    new_boxes=st.integers(0, 30),
    new_images=st.integers(0, 9),
    class_boxes=st.dictionaries(st.sampled_from("abc"), st.integers(0, 9)),
    drift=st.sampled_from([(), (CHANGE,)]),
    held=st.sampled_from([None, "r1-12345678"]),
    approved_round=st.sampled_from([None, 2, 3]),
)
policies = st.builds(
    PolicySettings,
    new_boxes=st.none() | st.integers(1, 30),
    drift=st.booleans(),
    min_class_boxes=st.integers(0, 9),
    windows=st.sampled_from([(), ("sat-sun",), ("22:00-06:00",)]),
    approval=st.booleans(),
)


@given(snapshots, policies)
def test_open_round_is_closed_if_and_only_if_a_trigger_applies_and_no_requirement_is_open(
    snapshot: PolicySnapshot, settings: PolicySettings
) -> None:
    decision = decide(snapshot, settings)
    triggered = any(check.kind == "trigger" and check.verdict is True for check in decision.checks)
    met = all(check.verdict is not False for check in decision.checks if check.kind == "requirement")
    assert {check.name for check in decision.checks} == set(POLICY_CHECKS)
    assert decision.action == ("close" if triggered and met else "wait")
    assert decision.partial is (decision.action == "close" and snapshot.answered < snapshot.sent)
