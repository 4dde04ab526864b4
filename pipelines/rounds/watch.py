"""``dsmoe watch``: opens rounds, imports what came back, and closes rounds when the policy says so.

All state is in the journal, so the loop can be killed at any point and started again. Settings and class
book are read again at each step.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dsmoe_core.errors import DsmoeError, ServiceError, WorkspaceBusyError
from pipelines.rounds.context import LoopContext
from pipelines.rounds.dispatch import shows_champion
from pipelines.rounds.drift import pool_in_order
from pipelines.rounds.harvesting import record_new_annotations
from pipelines.rounds.loop import close_round, open_round, send_pre_annotations
from pipelines.rounds.notification import Notifier, check_packages
from pipelines.rounds.policy import PolicyDecision, PolicySnapshot, decide
from pipelines.rounds.policy_snapshot import take_snapshot
from pipelines.rounds.simulated_annotator import load_truth, simulated_annotator
from pipelines.settings.policy import Event, NotifySettings
from pipelines.workspace.loop_lock import LoopLockLostError
from pipelines.workspace.round_summary import RoundSummary
from pipelines.workspace.workspace import Workspace

MAX_BACKOFF_S = 900.0
"""Longest wait after an error, unless ``every_s`` is longer."""
SERVICE_FAILURES = 3
"""Failures of a service in a row from which on people are notified."""
REFUSED = ("refused", "not enough evidence")
"""Verdicts of the promotion gate of which people are notified as a refusal."""
_NOTIFIED = "notified"

OpenContext = Callable[[], AbstractContextManager[LoopContext]]
"""Opens the workspace with its services, for one step."""


@dataclass(frozen=True, slots=True)
class WatchPlan:
    """How long and how often to work.

    Attributes:
        every_s: seconds between two steps where nothing is to be done.
        rounds: rounds to close; None: go on until stopped.
        truth: labels with which a simulated annotator answers; None: people do.
    """

    every_s: float = 60.0
    rounds: int | None = None
    truth: Path | None = None


class Watch:
    """The loop over one workspace, whose loop lock is held by the caller.

    Args:
        open_context: opens the workspace, for each step anew.
        report: called with one line for each change.
        check: raises where the loop lock was lost or the loop was asked to stop; called before each action.
        sleep: waits so many seconds; returns True where the loop was asked to stop.
        long_action: surrounds the opening and the closing of a round, which may be interrupted.
    """

    def __init__(
        self,
        open_context: OpenContext,
        plan: WatchPlan,
        *,
        report: Callable[[str], None],
        check: Callable[[], None],
        sleep: Callable[[float], bool],
        long_action: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._open_context, self._plan = open_context, plan
        self._report, self._check, self._sleep = report, check, sleep
        self._long_action = long_action
        self._notifier = Notifier(report)
        self._notify = NotifySettings()
        self._closed = 0
        self._reported: object = None
        self._started = False

    def run(self) -> int:
        """Work until stopped, or until the rounds of the plan are closed; returns how many were closed.

        Raises:
            DsmoeError: the first step failed for another reason than a service that does not answer, or
                another process took the lock.
        """
        failures = 0
        pause: float | None
        try:
            while self._plan.rounds is None or self._closed < self._plan.rounds:
                try:
                    decision = self.step()
                except LoopLockLostError:
                    raise
                except DsmoeError as error:
                    if not self._started and not isinstance(error, ServiceError | WorkspaceBusyError):
                        raise
                    failures += 1
                    pause = self._failed(error, failures)
                else:
                    failures, pause = 0, self._pause(decision)
                    if pause is None:
                        break
                if pause and self._sleep(pause):
                    break
        finally:
            self._notifier.close(2 * self._notify.timeout_s + 1)
        return self._closed

    def once(self) -> PolicyDecision:
        """Make one step; returns the decision that was carried out.

        Raises:
            DsmoeError: the step failed.
        """
        try:
            return self.step()
        finally:
            self._notifier.close(2 * self._notify.timeout_s + 1)

    def step(self) -> PolicyDecision:
        """Import what came back, decide by the policy, and carry the decision out."""
        with self._open_context() as context:
            workspace = context.workspace
            self._notify = workspace.settings.notify
            check_packages(self._notify)
            self._set_notified_of_earlier_rounds(workspace)
            self._check()
            bring_up_to_date(context, self._plan.truth)
            snapshot = take_snapshot(workspace)
            decision = decide(snapshot, workspace.settings.policy)
            self._report_decision(snapshot, decision)
            self._notify_of(workspace, snapshot, decision)
            self._check()
            self._carry_out(context, decision)
        self._started = True
        return decision

    def _carry_out(self, context: LoopContext, decision: PolicyDecision) -> None:
        if decision.action == "open":
            with self._long_action():
                row = open_round(context)
            self._report(f"round {row.round} is open: {row.sent} images are sent out")
            content = _content(context.workspace, f"round {row.round} is ready: {row.sent} images", row)
            self._send(context.workspace, "round-ready", str(row.round), content)
        elif decision.action == "close":
            with self._long_action():
                row = close_round(context, partial=decision.partial)
            self._closed += 1
            self._report(f"round {row.round} is closed; {row.reason}")
            self._notify_of_refusal(context.workspace)

    def _pause(self, decision: PolicyDecision) -> float | None:
        """Seconds until the next step; None where nothing is left to do for the plan."""
        if decision.action in ("open", "close"):
            return 0.0
        if decision.action == "idle" and self._plan.rounds is not None:
            return None
        return self._plan.every_s

    def _failed(self, error: DsmoeError, failures: int) -> float:
        """Report a failed step; returns the seconds until it is tried again."""
        every = self._plan.every_s
        pause = max(every, min(every * 2.0 ** min(failures - 1, 30), MAX_BACKOFF_S))
        problem = " ".join(error.problem.split())
        self._report(f"{problem}; next try in {pause:g} s")
        self._reported = None
        service = isinstance(error, ServiceError)
        if not isinstance(error, WorkspaceBusyError) and failures == (SERVICE_FAILURES if service else 1):
            content = {"message": problem, "remedy": error.remedy, "failures": failures, "at": _now()}
            self._notifier.send(self._notify, "failed", content)
        return pause

    def _report_decision(self, snapshot: PolicySnapshot, decision: PolicyDecision) -> None:
        """Print why nothing is done, unless it was printed already."""
        verdicts = tuple((check.name, check.verdict) for check in decision.checks)
        shown = (decision.action, snapshot.round, snapshot.answered, verdicts)
        if decision.action in ("wait", "idle") and shown != self._reported:
            self._report(f"waiting: {decision.reason}")
        self._reported = shown

    def _notify_of(self, workspace: Workspace, snapshot: PolicySnapshot, decision: PolicyDecision) -> None:
        """Notify people of what is known from the journal, each once; also of what a killed run did."""
        self._notify_of_refusal(workspace)
        rows = workspace.rounds()
        if rows and rows[-1].state == "open":
            row = rows[-1]
            content = _content(workspace, f"round {row.round} is ready: {row.sent} images", row)
            self._send(workspace, "round-ready", str(row.round), content)
        if snapshot.held is not None:
            message = f"candidate {snapshot.held} waits for approval"
            self._send(workspace, "held", snapshot.held, _content(workspace, message))
        elif blocked_by_approval(decision):
            message = f"the retraining of round {snapshot.round} waits for `dsmoe round approve`"
            self._send(workspace, "held", f"round {snapshot.round}", _content(workspace, message, rows[-1]))
        if snapshot.drift:
            message = "; ".join(map(str, snapshot.drift))
            self._send(workspace, "drift", message, _content(workspace, message))

    def _notify_of_refusal(self, workspace: Workspace) -> None:
        closed = [r for r in workspace.journal.rounds() if r.state == "closed"]
        if closed and (closed[-1].result or {}).get("verdict") in REFUSED:
            row = workspace.rounds()[closed[-1].round]
            self._send(workspace, "refused", str(row.round), _content(workspace, row.reason or "", row))

    def _set_notified_of_earlier_rounds(self, workspace: Workspace) -> None:
        """Before the first step in a workspace: nobody is notified of what happened earlier."""
        if workspace.journal.value(_NOTIFIED) is not None:
            return
        rows = workspace.rounds()
        closed = [str(row.round) for row in rows if row.state == "closed"]
        opened = [str(row.round) for row in rows if row.state == "open"]
        earlier = {"refused": closed[-1:], "round-ready": opened[-1:]}
        workspace.journal.set_value(_NOTIFIED, {event: ids[0] for event, ids in earlier.items() if ids})

    def _send(self, workspace: Workspace, event: Event, subject: str, content: dict[str, Any]) -> None:
        """Send an event unless it was sent for the same subject."""
        notified = dict(workspace.journal.value(_NOTIFIED) or {})
        if notified.get(event) == subject:
            return
        self._notifier.send(workspace.settings.notify, event, content)
        workspace.journal.set_value(_NOTIFIED, notified | {event: subject})


def bring_up_to_date(context: LoopContext, truth: Path | None = None) -> None:
    """Import the annotations of an open round, and predict images that arrived if drift is watched.

    If the champion was changed by hand since, as by a rollback, its pre-annotations are sent first.

    Args:
        truth: labels with which a simulated annotator answers first; None: people do.

    Raises:
        WorkspaceBusyError: another process holds the workspace.
        StudioError: the labelling server fails.
    """
    workspace = context.workspace
    rows = workspace.rounds()
    if not rows or rows[-1].state != "open":
        return
    if not shows_champion(workspace, rows[-1].round):
        send_pre_annotations(context)
    if truth is not None and rows[-1].answered < rows[-1].sent:
        simulated_annotator(load_truth(truth, workspace))(context, rows[-1])
    record_new_annotations(context)
    champion, policy = workspace.champion(), workspace.settings.policy
    if policy.drift and champion is not None:
        with workspace.locked():
            context.ensure_predictions(champion, pool_in_order(workspace, policy.drift_images))


def blocked_by_approval(decision: PolicyDecision) -> bool:
    """Whether a trigger applies and only the approval of a person is missing."""
    triggered = any(check.kind == "trigger" and check.verdict for check in decision.checks)
    open_ = [c.name for c in decision.checks if c.kind == "requirement" and c.verdict is False]
    return triggered and open_ == ["approval"]


def explain(workspace: Workspace) -> PolicyDecision:
    """What a step would do now, by what the journal knows; asks no service and changes nothing."""
    return decide(take_snapshot(workspace), workspace.settings.policy)


def _content(workspace: Workspace, message: str, row: RoundSummary | None = None) -> dict[str, Any]:
    content: dict[str, Any] = {
        "title": workspace.settings.title,
        "workspace": str(workspace.path),
        "message": message,
        "at": _now(),
    }
    if row is not None:
        content |= {"round": row.round, "images": row.sent, "model": row.model, "map": row.map}
    return content


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
