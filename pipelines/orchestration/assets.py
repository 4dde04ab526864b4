"""The steps of a retrain cycle as Dagster assets of one workspace.

The journal holds all results, and each step can be repeated, so an asset stores nothing but metadata and a
run can be killed and started again. One run closes the last round and opens the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from dsmoe_core.errors import DsmoeError, ServiceError, WorkspaceBusyError
from pipelines.progress import SilentProgress
from pipelines.rounds import loop
from pipelines.rounds.context import LoopContext
from pipelines.rounds.gate import Outcome, gate_checks
from pipelines.rounds.policy import decide
from pipelines.rounds.policy_snapshot import take_snapshot
from pipelines.services import factory
from pipelines.settings.environment import Environment
from pipelines.workspace.workspace import Workspace

PARTIAL_TAG = "dsmoe/partial"
"""Tag of a run that closes a round although images of it are not answered; its value is ``true``."""
RETRIES = dg.RetryPolicy(max_retries=3, delay=30, backoff=dg.Backoff.EXPONENTIAL)
CLOSING = ("annotations", "dataset", "candidate", "evaluation", "champion")
OPENING = ("ranking", "pre_annotations")

Step = Callable[[LoopContext, bool], Mapping[str, Any]]
"""Runs a step; gets the context and whether a round may be closed partly, returns metadata."""


@contextmanager
def open_context(workspace: Path) -> Iterator[LoopContext]:
    """Open a workspace with its services."""
    progress = SilentProgress()
    with Workspace.open(workspace) as opened:
        yield factory.loop_context(opened, Environment.read(), progress, progress.status)[0]


@contextmanager
def errors_as_failures() -> Iterator[None]:
    """Report our errors as Dagster failures; only those that can pass by themselves are retried."""
    try:
        yield
    except DsmoeError as error:
        passing = isinstance(error, ServiceError | WorkspaceBusyError)
        raise dg.Failure(str(error), allow_retries=passing) from error


STEPS: dict[str, tuple[str, Step]] = {
    "annotations": (
        "annotations of the last round, from Label Studio",
        lambda context, partial: loop.import_annotations(context, partial=partial),
    ),
    "dataset": (
        "the dataset version of all annotations",
        lambda context, _: loop.make_dataset_version(context),
    ),
    "candidate": ("the model trained on it", lambda context, _: loop.train_candidate(context)),
    "evaluation": (
        "metrics of candidate and champion on the test set",
        lambda context, _: loop.evaluate_candidate(context),
    ),
    "champion": ("the model in use", lambda context, _: _promoted(context)),
    "ranking": (
        "the images of the next round, by the acquisition function",
        lambda context, _: _ranked(context),
    ),
    "pre_annotations": (
        "the next round in Label Studio, with pre-annotations",
        lambda context, _: _sent(context),
    ),
}
"""Description and step by name of the asset, in their order."""


def _promoted(context: LoopContext) -> dict[str, Any]:
    row = loop.promote_candidate(context)
    return {"champion": context.workspace.champion(), "candidate": row.model, "reason": row.reason}


def _ranked(context: LoopContext) -> dict[str, Any]:
    """Rank the images of the next round, unless the policy does not open one now."""
    workspace = context.workspace
    decision = decide(take_snapshot(workspace), workspace.settings.policy)
    if _is_closed(workspace) and decision.action != "open":
        return {"images": 0, "reason": decision.reason}
    return {"images": loop.rank_images(context).sent}


def _sent(context: LoopContext) -> dict[str, Any]:
    if _is_closed(context.workspace):
        return {"images": 0}
    return {"images": loop.send_pre_annotations(context).sent}


def _is_closed(workspace: Workspace) -> bool:
    """Whether no round is open or partly open."""
    records = workspace.journal.rounds()
    return not records or records[-1].state == "closed"


def round_assets(workspace: Path) -> list[dg.AssetsDefinition]:
    """The assets of a workspace; each depends on the one before it.

    The checks of the promotion gate that are set when this is called are asset checks of ``champion``.
    """
    with Workspace.open(workspace) as opened:
        checks = gate_checks(opened.settings.gate.checks)
    specs = [
        dg.AssetCheckSpec(name, asset="champion", description=c.description) for name, c in checks.items()
    ]
    names = list(STEPS)
    return [
        _asset(
            workspace, name, names[index - 1 : index] if index else [], specs if name == "champion" else []
        )
        for index, name in enumerate(names)
    ]


def _asset(
    workspace: Path, name: str, deps: list[str], checks: list[dg.AssetCheckSpec]
) -> dg.AssetsDefinition:
    description, step = STEPS[name]

    @dg.asset(
        name=name,
        deps=deps,
        description=description,
        group_name="rounds",
        retry_policy=RETRIES,
        check_specs=checks or None,
    )
    def compute(context) -> dg.MaterializeResult:  # type: ignore[no-untyped-def, type-arg]
        partial = context.run.tags.get(PARTIAL_TAG) == "true"
        with errors_as_failures(), open_context(workspace) as opened:
            metadata = dict(step(opened, partial))
            rounds = opened.workspace.journal.rounds()
            results = [_check_result(opened.workspace, spec.name) for spec in checks]
        return dg.MaterializeResult(
            metadata={"rounds": len(rounds), **_plain(metadata)}, check_results=results
        )

    return compute


def _check_result(workspace: Workspace, name: str) -> dg.AssetCheckResult:
    """A check of the gate in the last closed round; passed where the gate had nothing to compare."""
    closed = [r for r in workspace.journal.rounds() if r.state == "closed" and r.result is not None]
    result: Mapping[str, Any] = (closed[-1].result or {}) if closed else {}
    made = result.get("checks", {}).get(name)
    if made is None:
        promoted = bool(result.get("promoted", True))
        return dg.AssetCheckResult(
            passed=promoted, check_name=name, description=f"not made; {result.get('reason')}"
        )
    return dg.AssetCheckResult(
        passed=made["outcome"] == Outcome.PASS,
        check_name=name,
        severity=dg.AssetCheckSeverity.WARN,  # the champion stays, and the next round is opened
        description=str(made["reason"]),
        metadata=_plain(made["values"]),
    )


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as Dagster takes them for metadata."""
    return {
        name: value if value is None or isinstance(value, str | int | float) else dg.MetadataValue.json(value)
        for name, value in values.items()
    }
