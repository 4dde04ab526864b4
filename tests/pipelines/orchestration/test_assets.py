"""The steps of a retrain cycle as Dagster assets, materialised in process on a stub workspace."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import dagster as dg
import pytest

from annotate.studio.fake import FakeStudio
from pipelines.detectors.stub_detector import StubDetector
from pipelines.orchestration.assets import CLOSING, OPENING, PARTIAL_TAG, STEPS, round_assets
from pipelines.orchestration.definitions import CYCLE, OPEN, definitions, requested_run
from pipelines.progress import SilentProgress
from pipelines.rounds.context import LoopContext
from pipelines.settings.gate import GateSettings
from pipelines.workspace.loop_lock import loop_lock
from pipelines.workspace.workspace import Workspace

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
Label = Callable[[LoopContext], None]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def answer(workspace: Workspace, label: Label) -> None:
    """Annotate the open round through the stub studio's file, as another process does."""
    studio = FakeStudio(workspace.path / "studio" / "stub.json")
    label(LoopContext(workspace, studio, StubDetector(), SilentProgress()))


def run(
    workspace: Workspace,
    instance: dg.DagsterInstance,
    names: tuple[str, ...],
    *,
    ok: bool = True,
    **tags: str,
) -> dg.ExecuteInProcessResult:
    result = dg.materialize(
        round_assets(workspace.path),
        instance=instance,
        selection=list(names),
        raise_on_error=False,
        tags=tags,
    )
    assert result.success is ok
    return result


def test_assets_are_the_steps_in_their_order(workspace: Workspace) -> None:
    keys = [asset.key.to_user_string() for asset in round_assets(workspace.path)]
    assert keys == [*CLOSING, *OPENING] == list(STEPS)


def test_cycle_closes_a_round_and_opens_the_next(
    workspace: Workspace, instance: dg.DagsterInstance, label: Label
) -> None:
    run(workspace, instance, OPENING)
    answer(workspace, label)
    result = run(workspace, instance, (*CLOSING, *OPENING))
    rows = workspace.rounds()
    assert [row.state for row in rows] == ["closed", "open"]
    assert workspace.champion() == rows[0].model
    (made,) = result.asset_materializations_for_node("candidate")
    assert made.metadata["model"].value == rows[0].model
    checks = {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
    assert checks == dict.fromkeys(workspace.settings.gate.checks, True)


def test_failing_gate_is_a_failed_asset_check(
    workspace: Workspace, instance: dg.DagsterInstance, label: Label
) -> None:
    settings = workspace.settings.model_copy(
        update={"gate": GateSettings(checks=("min_gain",), min_gain=0.99)}
    )
    settings.write(workspace.path / "dsmoe.yaml")
    run(workspace, instance, OPENING)
    answer(workspace, label)
    run(workspace, instance, (*CLOSING, *OPENING))
    answer(workspace, label)
    result = run(workspace, instance, (*CLOSING, *OPENING))  # the next round is opened all the same
    (check,) = result.get_asset_check_evaluations()
    assert (check.check_name, check.passed) == ("min_gain", False)
    assert check.metadata["min_gain"].value == pytest.approx(0.99)
    assert [row.promoted for row in workspace.rounds()] == [True, False, None]


def test_repeated_closing_changes_nothing(
    workspace: Workspace, instance: dg.DagsterInstance, label: Label
) -> None:
    run(workspace, instance, OPENING)
    answer(workspace, label)
    run(workspace, instance, CLOSING)
    before = (workspace.rounds(), workspace.registry.history(), workspace.journal.steps())
    run(workspace, instance, CLOSING)
    assert (workspace.rounds(), workspace.registry.history(), workspace.journal.steps()) == before


def test_round_that_is_not_answered_fails_unless_the_run_is_partial(
    workspace: Workspace, instance: dg.DagsterInstance
) -> None:
    run(workspace, instance, OPENING)
    result = run(workspace, instance, CLOSING, ok=False)
    assert [e.step_key for e in result.get_step_failure_events()] == ["annotations"]
    assert not [event for event in result.all_events if event.is_step_up_for_retry]  # a person must act
    studio = FakeStudio(workspace.path / "studio" / "stub.json")
    stub = LoopContext(workspace, studio, StubDetector(), SilentProgress())
    project = stub.project()
    stub.studio.submit(project, stub.studio.open_tasks(project)[0], [], seconds=1.0)
    run(workspace, instance, CLOSING, **{PARTIAL_TAG: "true"})
    assert [(row.state, row.answered) for row in workspace.rounds()] == [("closed", 1)]


def test_no_round_is_opened_where_the_policy_waits(
    workspace: Workspace, instance: dg.DagsterInstance
) -> None:
    from pipelines.workspace.registry import HELD

    workspace.journal.set_value(HELD, "r0-12345678")
    run(workspace, instance, OPENING)
    assert workspace.rounds() == []


def test_policy_requests_runs(workspace: Workspace, instance: dg.DagsterInstance, label: Label) -> None:
    request = requested_run(workspace.path, instance)
    assert isinstance(request, dg.RunRequest)
    assert request.job_name == OPEN
    run(workspace, instance, OPENING)
    assert isinstance(requested_run(workspace.path, instance), dg.SkipReason)
    answer(workspace, label)
    request = requested_run(workspace.path, instance)
    assert isinstance(request, dg.RunRequest)
    assert (request.job_name, request.tags[PARTIAL_TAG]) == (CYCLE, "false")
    with loop_lock(workspace.journal.loop_locks(), workspace.path, 60.0):
        assert isinstance(requested_run(workspace.path, instance), dg.SkipReason)


def test_no_run_is_requested_right_after_a_failed_one(
    workspace: Workspace, instance: dg.DagsterInstance
) -> None:
    run(workspace, instance, OPENING)
    run(workspace, instance, CLOSING, ok=False)
    skipped = requested_run(workspace.path, instance)
    assert isinstance(skipped, dg.SkipReason)
    assert "failed" in (skipped.skip_message or "")


def test_definitions_are_valid_and_run_in_one_process(workspace: Workspace) -> None:
    made = definitions(workspace.path)
    dg.Definitions.validate_loadable(made)
    job = made.resolve_job_def(CYCLE)
    assert job.executor_def is dg.in_process_executor
    sensor = made.resolve_sensor_def("policy_sensor")
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert made.resolve_schedule_def("policy_schedule").default_status is dg.DefaultScheduleStatus.STOPPED


def test_sensor_and_schedule_evaluate_the_policy(
    workspace: Workspace, tmp_path_factory: pytest.TempPathFactory, label: Label
) -> None:
    instance = dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("dagster")))
    made = definitions(workspace.path)
    repository = made.get_repository_def()
    sensor = made.resolve_sensor_def("policy_sensor")
    with dg.build_sensor_context(instance=instance, repository_def=repository) as context:
        tick = sensor.evaluate_tick(context)
    assert [request.job_name for request in tick.run_requests or []] == [OPEN]
    schedule = made.resolve_schedule_def("policy_schedule")
    with dg.build_schedule_context(instance=instance, repository_def=repository) as context:
        assert schedule.evaluate_tick(context).run_requests == []
    run(workspace, instance, OPENING)
    answer(workspace, label)
    with dg.build_schedule_context(instance=instance, repository_def=repository) as context:
        tick = schedule.evaluate_tick(context)
    assert len(tick.run_requests or []) == 1
