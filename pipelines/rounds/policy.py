"""Policy of the retrain cycles: what to do next with a workspace, check by check.

All functions are pure: they compare a snapshot of the workspace with the settings. To add a check, write a
function from ``PolicySnapshot`` and ``PolicySettings`` to ``PolicyCheck``, and add an entry to
``POLICY_CHECKS``. Its threshold is a field of ``PolicySettings``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from pipelines.settings.policy import PolicySettings, TimeWindow
from pipelines.workspace.journal import State

Kind = Literal["trigger", "requirement"]
Action = Literal["open", "close", "wait", "idle"]
Plain = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class DriftSignal:
    """A change of one signal in the stream of predictions.

    Attributes:
        signal: such as ``uncertainty``, ``routing entropy`` or ``expert 3``.
        image: name of the first image after the change.
        before, after: mean of the signal since the change before it, and from that image on.
    """

    signal: str
    image: str
    before: float
    after: float

    def __str__(self) -> str:
        return f"{self.signal} {self.before:.3f} -> {self.after:.3f} at {self.image}"


@dataclass(frozen=True, slots=True)
class PolicySnapshot:
    """What the policy knows of a workspace.

    Attributes:
        now: local time, with a time zone.
        round, state: of the last round; None without one.
        sent, answered: images of the last round.
        unlabelled: images that can still be sent out.
        new_boxes, new_images: labelled since the last training.
        class_boxes: labelled boxes by class of the class book.
        champion_since: time of the last change of the champion; None without one.
        last_closed: when the last round was closed; None if none was.
        drift: changes of the champion's predictions on images that arrived after its training.
        held: id of the candidate that waits for approval; None if none does.
        approved_round: the round whose retraining was approved last; None if none was.
    """

    now: datetime
    round: int | None = None
    state: State | None = None
    sent: int = 0
    answered: int = 0
    unlabelled: int = 0
    new_boxes: int = 0
    new_images: int = 0
    class_boxes: Mapping[str, int] = field(default_factory=dict)
    champion_since: datetime | None = None
    last_closed: datetime | None = None
    drift: tuple[DriftSignal, ...] = ()
    held: str | None = None
    approved_round: int | None = None

    @property
    def complete(self) -> bool:
        """All images of the last round are answered; False if it has none."""
        return self.sent > 0 and self.answered >= self.sent


@dataclass(frozen=True, slots=True)
class PolicyCheck:
    """Result of one check.

    Attributes:
        value, threshold: what was compared.
        verdict: a trigger applies, or a requirement is met; None if the check is off.
        reason: for people, as a clause.
    """

    name: str
    kind: Kind
    value: Plain
    threshold: Plain
    verdict: bool | None
    reason: str


@dataclass(frozen=True, slots=True)
class PolicyDecision:
    """What happens next.

    Attributes:
        action: open a round, close the round and retrain, wait, or idle: nothing is left to do until images
            are added.
        partial: the round is closed although images of it are not answered.
        reason: for people.
        checks: in the order in which they were made; also those that are off.
    """

    action: Action
    partial: bool
    reason: str
    checks: tuple[PolicyCheck, ...]

    def as_dict(self) -> dict[str, Any]:
        """The decision as JSON values."""
        checks = [{name: getattr(check, name) for name in check.__slots__} for check in self.checks]
        return {"action": self.action, "partial": self.partial, "reason": self.reason, "checks": checks}


CheckFunction = Callable[[PolicySnapshot, PolicySettings], PolicyCheck]


def all_answered(snapshot: PolicySnapshot, settings: PolicySettings) -> PolicyCheck:
    """Trigger: all images of the open round are answered."""
    verdict = snapshot.complete if settings.all_answered else None
    reason = f"{snapshot.answered} of {snapshot.sent} images are answered"
    return PolicyCheck("all_answered", "trigger", snapshot.answered, snapshot.sent, verdict, reason)


def new_boxes(snapshot: PolicySnapshot, settings: PolicySettings) -> PolicyCheck:
    """Trigger: enough boxes are new since the last training."""
    value, threshold = snapshot.new_boxes, settings.new_boxes
    verdict = None if threshold is None else value >= threshold
    reason = f"{value} boxes are new since the last training"
    return PolicyCheck("new_boxes", "trigger", value, threshold, verdict, reason)


def champion_age(snapshot: PolicySnapshot, settings: PolicySettings) -> PolicyCheck:
    """Trigger: the champion is older than ``policy.champion_age_h``."""
    value = _hours(snapshot.now, snapshot.champion_since)
    threshold = settings.champion_age_h
    verdict = None if threshold is None else value is not None and value > threshold
    reason = "there is no champion yet" if value is None else f"the champion is {value:.1f} h old"
    return PolicyCheck("champion_age", "trigger", value, threshold, verdict, reason)


def drift(snapshot: PolicySnapshot, settings: PolicySettings) -> PolicyCheck:
    """Trigger: uncertainty or routing changed on images that arrived after the champion's training."""
    verdict = bool(snapshot.drift) if settings.drift else None
    reason = "; ".join(map(str, snapshot.drift)) or "no change of uncertainty or routing is known"
    value = len(snapshot.drift)
    return PolicyCheck("drift", "trigger", value, 1 if settings.drift else None, verdict, reason)


def class_boxes(snapshot: PolicySnapshot, settings: PolicySettings) -> PolicyCheck:
    """Requirement: each class has enough labelled boxes, before a round is closed early."""
    threshold = settings.min_class_boxes
    scarce = min(snapshot.class_boxes, key=lambda name: snapshot.class_boxes[name], default=None)
    value = 0 if scarce is None else snapshot.class_boxes[scarce]
    verdict = (value >= threshold or snapshot.complete) if threshold else None
    reason = f"class {scarce!r} has the fewest boxes, {value}"
    if snapshot.complete and threshold and value < threshold:
        reason += "; the round is answered completely, so no more can come"
    return PolicyCheck("class_boxes", "requirement", value, threshold, verdict, reason)


def new_labels(snapshot: PolicySnapshot, settings: PolicySettings) -> PolicyCheck:
    """Requirement: an image was labelled or changed since the last training; or the round is complete."""
    del settings
    verdict = snapshot.new_images > 0 or snapshot.complete
    reason = f"{snapshot.new_images} images were labelled or changed since the last training"
    return PolicyCheck("new_labels", "requirement", snapshot.new_images, 1, verdict, reason)


def time_window(snapshot: PolicySnapshot, settings: PolicySettings) -> PolicyCheck:
    """Requirement: the local time is in one of ``policy.windows``."""
    windows = settings.windows
    inside = any(TimeWindow.parse(text).contains(snapshot.now) for text in windows)
    clock = f"{snapshot.now:%a %H:%M}"
    reason = f"it is {clock}"
    return PolicyCheck(
        "time_window", "requirement", clock, ", ".join(windows) or None, inside if windows else None, reason
    )


def cooldown(snapshot: PolicySnapshot, settings: PolicySettings) -> PolicyCheck:
    """Requirement: the last round was closed at least ``policy.cooldown_h`` ago."""
    value, threshold = _hours(snapshot.now, snapshot.last_closed), settings.cooldown_h
    verdict = (value is None or value >= threshold) if threshold else None
    reason = "no round was closed yet" if value is None else f"the last round was closed {value:.1f} h ago"
    return PolicyCheck("cooldown", "requirement", value, threshold, verdict, reason)


def approval(snapshot: PolicySnapshot, settings: PolicySettings) -> PolicyCheck:
    """Requirement: a person approved the retraining of the round, if ``policy.approval`` is set."""
    approved = snapshot.round is not None and snapshot.approved_round == snapshot.round
    verdict = approved if settings.approval else None
    state = "is approved" if approved else "is not approved; approve it with `dsmoe round approve`"
    reason = f"the retraining of round {snapshot.round} {state}"
    return PolicyCheck("approval", "requirement", approved, True, verdict, reason)


def nothing_held(snapshot: PolicySnapshot, settings: PolicySettings) -> PolicyCheck:
    """Requirement: no candidate waits for a person's approval."""
    del settings
    waits = snapshot.held is not None
    reason = f"candidate {snapshot.held} waits for approval" if waits else "no candidate waits for approval"
    return PolicyCheck("nothing_held", "requirement", snapshot.held, None, not waits, reason)


POLICY_CHECKS: dict[str, CheckFunction] = {
    "all_answered": all_answered,
    "new_boxes": new_boxes,
    "champion_age": champion_age,
    "drift": drift,
    "class_boxes": class_boxes,
    "new_labels": new_labels,
    "time_window": time_window,
    "cooldown": cooldown,
    "approval": approval,
    "nothing_held": nothing_held,
}
_RESUME = ("time_window", "nothing_held")
"""Checks for a round that is partly closed already."""
_OPEN = ("nothing_held",)


def decide(snapshot: PolicySnapshot, settings: PolicySettings) -> PolicyDecision:
    """What to do next.

    An interrupted opening or closing is continued; a round is opened if none is open and images are left;
    an open round is closed if a trigger applies and all requirements are met.
    """
    if snapshot.state == "open":
        return _decide_open_round(snapshot, settings)
    if snapshot.state == "closing":
        checks = _make(_RESUME, snapshot, settings)
        return _unless_blocked("close", f"round {snapshot.round} is partly closed", checks)
    checks = _make(_OPEN, snapshot, settings)
    if snapshot.state == "opening":
        return _unless_blocked("open", f"round {snapshot.round} is partly opened", checks)
    if not snapshot.unlabelled:
        return PolicyDecision("idle", False, "no round is open and no image is left to send out", checks)
    return _unless_blocked("open", f"no round is open and {snapshot.unlabelled} images are left", checks)


def _decide_open_round(snapshot: PolicySnapshot, settings: PolicySettings) -> PolicyDecision:
    checks = _make(tuple(POLICY_CHECKS), snapshot, settings)
    triggers = [check for check in checks if check.kind == "trigger" and check.verdict]
    if not triggers:
        reasons = [c.reason for c in checks if c.kind == "trigger" and c.verdict is False]
        return PolicyDecision("wait", False, f"no trigger applies: {'; '.join(reasons)}", checks)
    partial = snapshot.answered < snapshot.sent
    return _unless_blocked("close", "; ".join(check.reason for check in triggers), checks, partial=partial)


def _make(
    names: tuple[str, ...], snapshot: PolicySnapshot, settings: PolicySettings
) -> tuple[PolicyCheck, ...]:
    return tuple(POLICY_CHECKS[name](snapshot, settings) for name in names)


def _unless_blocked(
    action: Action, reason: str, checks: tuple[PolicyCheck, ...], *, partial: bool = False
) -> PolicyDecision:
    blocked = [check.reason for check in checks if check.kind == "requirement" and check.verdict is False]
    if blocked:
        return PolicyDecision("wait", False, f"{reason}, but {'; '.join(blocked)}", checks)
    return PolicyDecision(action, partial, reason, checks)


def _hours(now: datetime, then: datetime | None) -> float | None:
    return None if then is None else max((now - then) / timedelta(hours=1), 0.0)
