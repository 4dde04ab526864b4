"""Settings of retrain cycles that run without a person: when to retrain, and whom to notify."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, time
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, SecretStr, field_serializer, model_validator

from dsmoe_core.config import Frozen

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = f"(?:{'|'.join(DAYS)})"
_TIME = r"(?:[01]\d|2[0-3]):[0-5]\d"
_WINDOW = re.compile(
    rf"(?:(?P<first>{_DAY})(?:-(?P<last>{_DAY}))?)?(?P<space> )?"
    rf"(?:(?P<start>{_TIME})-(?P<end>{_TIME}|24:00))?"
)
Event = Literal["round-ready", "held", "refused", "drift", "failed"]
EVENTS: tuple[Event, ...] = ("round-ready", "held", "refused", "drift", "failed")


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """A weekly time window, such as ``22:00-06:00``, ``sat-sun`` or ``mon-fri 22:00-06:00``.

    Attributes:
        days: 0 for Monday to 6 for Sunday, the days on which it starts.
        start: local time at which it starts.
        end: local time at which it ends; not after ``start``: on the next day.
    """

    days: frozenset[int]
    start: time
    end: time

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a window.

        Raises:
            ValueError: it is not ``[DAY[-DAY]] [HH:MM-HH:MM]``, or its start is its end.
        """
        match = _WINDOW.fullmatch(text.strip().lower())
        if match is None or not match[0] or bool(match["space"]) != bool(match["first"] and match["start"]):
            raise ValueError(f"{text!r} is not a window such as 22:00-06:00, sat-sun or mon-fri 22:00-06:00")
        first = DAYS.index(match["first"]) if match["first"] else 0
        last = DAYS.index(match["last"] or match["first"]) if match["first"] else 6
        days = frozenset((first + step) % 7 for step in range((last - first) % 7 + 1))
        if match["start"] is None:
            return cls(days, time(), time())
        start, end = time.fromisoformat(match["start"]), match["end"]
        window = cls(days, start, time() if end == "24:00" else time.fromisoformat(end))
        if window.start == window.end and end != "24:00":
            raise ValueError(f"{text!r} starts at its end; expected two times")
        return window

    def contains(self, moment: datetime) -> bool:
        """Whether a local time is in the window; the start belongs to it, the end does not."""
        clock, today = moment.time().replace(tzinfo=None), moment.weekday()
        if self.start < self.end:
            return today in self.days and self.start <= clock < self.end
        started_yesterday = clock < self.end and (today - 1) % 7 in self.days
        return started_yesterday or (clock >= self.start and today in self.days)


def _checked_window(text: str) -> str:
    TimeWindow.parse(text)
    return text


def _checked_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"{name!r} is not a time zone such as Europe/Berlin") from error
    return name


Window = Annotated[str, AfterValidator(_checked_window)]
TimeZone = Annotated[str, AfterValidator(_checked_zone)]


class PolicySettings(Frozen):
    """When ``dsmoe watch`` closes a round and retrains.

    A round is closed when at least one trigger (``all_answered``, ``new_boxes``, ``champion_age_h``,
    ``drift``) applies and no requirement (the other settings) is open.
    """

    all_answered: bool = Field(True, description="trigger: all images of the open round are answered")
    new_boxes: int | None = Field(
        None, ge=1, description="trigger: so many boxes are new since the last training; none: off"
    )
    champion_age_h: float | None = Field(
        None, gt=0, description="trigger: the champion is older than this, in hours; none: off"
    )
    drift: bool = Field(
        False,
        description="trigger: the champion's uncertainty or routing changed on images that arrived after its "
        "training; needs the extra watch",
    )
    drift_delta: float = Field(
        0.002, gt=0, lt=1, description="probability of a false alarm of ADWIN, over all watched signals"
    )
    drift_images: int = Field(
        2000, ge=64, description="newest images that are predicted to detect drift; older ones are left out"
    )
    min_class_boxes: int = Field(
        0,
        ge=0,
        description="requirement: labelled boxes of each class of the class book, before a round that is not "
        "answered completely is closed",
    )
    windows: tuple[Window, ...] = Field(
        (),
        description="requirement: retrain only in these times, such as 22:00-06:00, sat-sun or "
        "mon-fri 22:00-06:00; empty: at any time",
    )
    timezone: TimeZone | None = Field(
        None, description="time zone of the windows, such as Europe/Berlin; none: the machine's"
    )
    cooldown_h: float = Field(
        0.0, ge=0, description="requirement: hours since the last round was closed, before the next training"
    )
    approval: bool = Field(
        False, description="requirement: a person approves each retraining with `dsmoe round approve`"
    )

    @model_validator(mode="after")
    def _has_a_trigger(self) -> Self:
        if not (self.all_answered or self.new_boxes or self.champion_age_h or self.drift):
            raise ValueError("no trigger is on; expected all_answered, new_boxes, champion_age_h or drift")
        return self


class ScheduleSettings(Frozen):
    """How Dagster starts retrain cycles, see ``dsmoe schedule up``."""

    start: Literal["sensor", "cron", "none"] = Field(
        "sensor",
        description="what runs at first: the sensor, the cron schedule or none; Dagster's page switches",
    )
    every_s: int = Field(60, ge=30, description="seconds between two evaluations of the policy by the sensor")
    cron: str = Field("0 22 * * *", description="times at which the schedule evaluates the policy")


class NotifySettings(Frozen):
    """Who is notified of the events of ``dsmoe watch``."""

    webhook_url: SecretStr | None = Field(
        None, description="http or https address that gets each event as JSON by POST; it is never logged"
    )
    command: tuple[str, ...] = Field(
        (), description="program with its arguments that gets each event as JSON on stdin; no shell"
    )
    events: tuple[Event, ...] = Field(EVENTS, description="events that are sent")
    timeout_s: float = Field(10.0, gt=0, le=300, description="longest wait for the webhook or the command")

    @model_validator(mode="after")
    def _webhook_url_is_an_address(self) -> Self:
        if self.webhook_url is not None and not re.match(
            r"https?://\S+$", self.webhook_url.get_secret_value()
        ):
            raise ValueError("webhook_url is not an address; expected http://... or https://...")
        return self

    @field_serializer("webhook_url", when_used="json")
    def _write_webhook_url(self, url: SecretStr | None) -> str | None:
        """The address itself, because ``dsmoe.yaml`` has to keep it."""
        return None if url is None else url.get_secret_value()
