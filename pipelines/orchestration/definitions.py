"""Dagster's definitions of one workspace: assets, jobs, a sensor on the policy and a cron schedule."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

from dsmoe_core.errors import DsmoeError
from pipelines.orchestration.assets import CLOSING, OPENING, PARTIAL_TAG, open_context, round_assets
from pipelines.rounds.policy import decide
from pipelines.rounds.policy_snapshot import take_snapshot
from pipelines.rounds.watch import bring_up_to_date
from pipelines.workspace.loop_lock import LoopOwner, stale_reason
from pipelines.workspace.workspace import Workspace

CYCLE, OPEN = "retrain_cycle", "open_round"
RETRY_AFTER = timedelta(minutes=15)
"""Time after a failed run before the sensor starts another one."""
_ACTIVE = [
    s
    for s in dg.DagsterRunStatus
    if s not in (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
]


def definitions(workspace: Path) -> dg.Definitions:
    """All definitions of a workspace. A run executes its assets one after the other in one process."""
    with Workspace.open(workspace) as opened:
        schedule, zone = opened.settings.schedule, opened.settings.policy.timezone
    jobs = [
        dg.define_asset_job(
            CYCLE, selection=[*CLOSING, *OPENING], description="close the round, open the next"
        ),
        dg.define_asset_job(OPEN, selection=list(OPENING), description="open a round"),
    ]

    @dg.sensor(
        name="policy_sensor",
        jobs=jobs,
        minimum_interval_seconds=schedule.every_s,
        default_status=dg.DefaultSensorStatus(_status(schedule.start == "sensor")),
    )
    def policy_sensor(context) -> Iterator[dg.RunRequest | dg.SkipReason]:  # type: ignore[no-untyped-def]
        yield requested_run(workspace, context.instance)

    @dg.schedule(
        name="policy_schedule",
        job=jobs[0],
        cron_schedule=schedule.cron,
        execution_timezone=zone,
        default_status=dg.DefaultScheduleStatus(_status(schedule.start == "cron")),
    )
    def policy_schedule(context) -> dg.RunRequest | dg.SkipReason:  # type: ignore[no-untyped-def]
        request = requested_run(workspace, context.instance)
        if isinstance(request, dg.RunRequest) and request.job_name == OPEN:
            return dg.SkipReason("no round is open; materialize ranking and pre_annotations")
        return request

    return dg.Definitions(
        assets=round_assets(workspace),
        jobs=jobs,
        sensors=[policy_sensor],
        schedules=[policy_schedule],
        executor=dg.in_process_executor,
    )


def _status(running: bool) -> str:
    return "RUNNING" if running else "STOPPED"


def requested_run(workspace: Path, instance: dg.DagsterInstance) -> dg.RunRequest | dg.SkipReason:
    """The run that the policy asks for now, or why there is none."""
    waits = _other_work(workspace, instance)
    if waits is not None:
        return dg.SkipReason(waits)
    try:
        with open_context(workspace) as context:
            bring_up_to_date(context)
            decision = decide(take_snapshot(context.workspace), context.workspace.settings.policy)
    except DsmoeError as error:
        return dg.SkipReason(str(error))
    if decision.action not in ("open", "close"):
        return dg.SkipReason(decision.reason)
    job = CYCLE if decision.action == "close" else OPEN
    return dg.RunRequest(job_name=job, tags={PARTIAL_TAG: str(decision.partial).lower()})


def _other_work(workspace: Path, instance: dg.DagsterInstance) -> str | None:
    """Why no run may start: one is active or has just failed, or ``dsmoe watch`` works on the workspace."""
    if instance.get_runs(dg.RunsFilter(statuses=_ACTIVE), limit=1):
        return "a run is active"
    for record in instance.get_run_records(limit=1):
        ended = record.end_time
        if record.dagster_run.status == dg.DagsterRunStatus.FAILURE and ended is not None:
            again = datetime.fromtimestamp(ended, UTC) + RETRY_AFTER
            if datetime.now(UTC) < again:
                return f"the last run failed; the next one can start at {again:%H:%M} UTC"
    with Workspace.open(workspace) as opened:
        owner = opened.journal.loop_locks().owner()
        if owner is not None and stale_reason(owner, LoopOwner.this_process(opened.path, 60.0)) is None:
            return f"`dsmoe watch` works on the workspace: {owner}"
    return None
