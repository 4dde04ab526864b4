"""Settings of the policy and of notifications: time windows, triggers, the secret in the address."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dsmoe_core.errors import SettingsError
from pipelines.settings.policy import DAYS, NotifySettings, PolicySettings, TimeWindow
from pipelines.settings.workspace import WorkspaceSettings

MONDAY = datetime(2026, 11, 30, tzinfo=UTC)


def at(day: int, clock: str) -> datetime:
    """A moment of the week that starts on a Monday."""
    hours, minutes = map(int, clock.split(":"))
    return MONDAY + timedelta(days=day, hours=hours, minutes=minutes)


@pytest.mark.parametrize(
    ("window", "day", "clock", "inside"),
    [
        ("22:00-06:00", 2, "22:00", True),
        ("22:00-06:00", 2, "05:59", True),
        ("22:00-06:00", 2, "06:00", False),
        ("22:00-06:00", 2, "21:59", False),
        ("sat-sun", 5, "00:00", True),
        ("sat-sun", 6, "23:59", True),
        ("sat-sun", 0, "00:00", False),
        ("sun-mon", 0, "12:00", True),
        ("sun-mon", 1, "12:00", False),
        ("fri 22:00-06:00", 4, "23:00", True),
        ("fri 22:00-06:00", 5, "05:00", True),
        ("fri 22:00-06:00", 4, "05:00", False),
        ("fri 22:00-06:00", 5, "22:30", False),
        ("mon-fri 08:00-24:00", 0, "23:59", True),
        ("mon-fri 08:00-24:00", 1, "00:00", False),
        ("00:00-24:00", 3, "12:00", True),
        ("Sat 08:00-12:00", 5, "11:59", True),
    ],
)
def test_time_window_contains(window: str, day: int, clock: str, inside: bool) -> None:
    assert TimeWindow.parse(window).contains(at(day, clock)) is inside


@pytest.mark.parametrize(
    "text",
    ["", " ", "22-06", "25:00-06:00", "funday", "mon22:00-06:00", "22:00-22:00", "mon-", "06:00-24:30"],
)
def test_wrong_window_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        TimeWindow.parse(text)
    with pytest.raises(ValidationError):
        PolicySettings(windows=(text,))


minutes_of_day = st.integers(0, 24 * 60 - 1)


def clock(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


@given(start=minutes_of_day, end=minutes_of_day, day=st.integers(0, 6), now=minutes_of_day)
def test_a_window_and_its_complement_cover_each_moment_once(start: int, end: int, day: int, now: int) -> None:
    if start == end:
        return
    moment = at(day, clock(now))
    window = TimeWindow.parse(f"{clock(start)}-{clock(end)}")
    rest = TimeWindow.parse(f"{clock(end)}-{clock(start)}")
    assert window.contains(moment) is not rest.contains(moment)


@given(first=st.integers(0, 6), last=st.integers(0, 6), day=st.integers(0, 6), now=minutes_of_day)
def test_days_of_a_window(first: int, last: int, day: int, now: int) -> None:
    window = TimeWindow.parse(f"{DAYS[first]}-{DAYS[last]}")
    expected = {(first + n) % 7 for n in range(7) if n <= (last - first) % 7}
    assert window.contains(at(day, clock(now))) is (day in expected)


def test_policy_without_a_trigger_is_refused() -> None:
    with pytest.raises(ValidationError):
        PolicySettings(all_answered=False)
    assert PolicySettings(all_answered=False, new_boxes=5).new_boxes == 5


def test_unknown_time_zone_is_refused() -> None:
    with pytest.raises(ValidationError):
        PolicySettings(timezone="Mars/Olympus")


def test_webhook_is_kept_in_the_file_and_hidden_elsewhere(tmp_path: Path) -> None:
    url = "https://hooks.example/T0/secret-part"
    settings = WorkspaceSettings(title="boards", notify=NotifySettings(webhook_url=url))
    settings.write(tmp_path / "dsmoe.yaml")
    read = WorkspaceSettings.read(tmp_path / "dsmoe.yaml")
    assert read == settings
    assert read.notify.webhook_url is not None
    assert read.notify.webhook_url.get_secret_value() == url
    assert "secret-part" not in f"{read!r} {read}"


@pytest.mark.parametrize("url", ["ftp://hooks.example/secret-part", "secret-part", "http://"])
def test_wrong_webhook_is_refused_without_its_value(tmp_path: Path, url: str) -> None:
    (tmp_path / "dsmoe.yaml").write_text(f"title: boards\nnotify:\n  webhook_url: {url}\n")
    with pytest.raises(SettingsError) as refused:
        WorkspaceSettings.read(tmp_path / "dsmoe.yaml")
    assert "secret-part" not in str(refused.value)
