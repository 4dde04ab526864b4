"""Command `dsmoe watch`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.options import CURRENT_FOLDER, PortOption, WorkspaceArgument, finite
from pipelines.cli.stop_signals import StopSignals
from pipelines.cli.terminal import TerminalReporter, console, line, policy_table

if TYPE_CHECKING:
    from pipelines.rounds.context import LoopContext
    from pipelines.rounds.policy import PolicyDecision
    from pipelines.rounds.watch import OpenContext
    from pipelines.settings.environment import Environment

HEARTBEAT_S = 60.0
"""Longest time between two heartbeats of the loop lock, in seconds."""


def watch(
    workspace: WorkspaceArgument = CURRENT_FOLDER,
    every: Annotated[
        float,
        typer.Option(
            "--every",
            min=0.01,
            max=86400,
            help="Seconds between two checks of Label Studio.",
            callback=finite,
        ),
    ] = 60.0,
    rounds: Annotated[
        int | None, typer.Option("--rounds", min=1, help="End after so many closed rounds.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Decide once, carry it out, and end.")] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="With --once: only say what would happen now, check by check.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --once: print the decision as JSON.")] = False,
    simulated: Annotated[
        Path | None,
        typer.Option(
            "--simulated", metavar="FILE|DIR", help="Let a simulated annotator answer with these true labels."
        ),
    ] = None,
    port: PortOption = None,
) -> None:
    """Run the rounds: open them, import annotations, retrain when the policy of dsmoe.yaml says so.

    Goes on until it is stopped (Ctrl-C, SIGTERM), at once while it waits, opens or closes a round, else after
    the step; a second signal ends the step too. Started again, it continues. One loop works on a workspace.

    Example: `dsmoe watch boards --every 300`
    """
    if (explain or as_json) and not once:
        raise typer.BadParameter(f"{'--explain' if explain else '--json'} needs --once.")
    if once and rounds is not None:
        raise typer.BadParameter("--rounds and --once exclude each other.")
    if explain:
        _show(_explained(workspace), as_json)
        return
    stop = StopSignals()
    with stop.handled():
        try:
            decision = run_loop(workspace, (every, rounds, simulated), port, stop, once=once, quiet=as_json)
        except KeyboardInterrupt:
            line("stopped; `dsmoe watch` continues where it was")
            return
    if decision is not None and as_json:
        typer.echo(json.dumps(decision.as_dict(), indent=2))


def run_loop(
    path: Path,
    schedule: tuple[float, int | None, Path | None],
    port: int | None,
    stop: StopSignals,
    *,
    once: bool,
    quiet: bool,
) -> PolicyDecision | None:
    """Hold the loop lock and work.

    Args:
        schedule: seconds between two steps, rounds to close, labels of the simulated annotator.
    """
    from pipelines.rounds.watch import Watch, WatchPlan
    from pipelines.settings.environment import Environment
    from pipelines.workspace.loop_lock import loop_lock
    from pipelines.workspace.workspace import Workspace

    environment, plan = Environment.read(), WatchPlan(*schedule)
    report = (lambda _: None) if quiet else line
    with (
        Workspace.open(path) as opened,
        loop_lock(opened.journal.loop_locks(), opened.path, min(plan.every_s, HEARTBEAT_S)) as (
            heartbeat,
            replaced,
        ),
    ):
        if replaced is not None:
            report(f"took over from {replaced[0]}: {replaced[1]}")

        def check() -> None:
            heartbeat.check()
            stop.check()

        loop = Watch(
            _opener(opened.path, environment, port, quiet=quiet),
            plan,
            report=report,
            check=check,
            sleep=stop.sleep,
            long_action=stop.interruptible,
        )
        if once:
            return loop.once()
        closed = loop.run()
        report(f"{closed} rounds are closed")
    return None


def _opener(path: Path, environment: Environment, port: int | None, *, quiet: bool) -> OpenContext:
    from pipelines.progress import SilentProgress
    from pipelines.services import factory
    from pipelines.workspace.workspace import Workspace

    @contextmanager
    def open_context() -> Iterator[LoopContext]:
        with Workspace.open(path) as workspace:
            if quiet:
                silent = SilentProgress()
                yield factory.loop_context(workspace, environment, silent, silent.status, port)[0]
                return
            with TerminalReporter() as progress:
                yield factory.loop_context(workspace, environment, progress, progress.status, port)[0]

    return open_context


def _explained(path: Path) -> PolicyDecision:
    from pipelines.rounds.watch import explain
    from pipelines.workspace.workspace import Workspace

    with Workspace.open(path) as opened:
        return explain(opened)


def _show(decision: PolicyDecision, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(decision.as_dict(), indent=2))
        return
    console.print(policy_table(decision.checks))
    line(f"{decision.action}: {decision.reason}")


def approve(
    workspace: WorkspaceArgument = CURRENT_FOLDER,
    reason: Annotated[
        str, typer.Option("--reason", help="Reason, kept in the journal.")
    ] = "approved by hand",
) -> None:
    """Approve the retraining of the open round, which policy.approval holds.

    Example: `dsmoe round approve boards --reason "labels checked"`
    """
    from pipelines.workspace.approval import approve_retraining
    from pipelines.workspace.workspace import Workspace

    with Workspace.open(workspace) as opened:
        number = approve_retraining(opened.journal, reason)
    line(f"the retraining of round {number} is approved")
