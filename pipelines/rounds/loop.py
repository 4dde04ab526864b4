"""The active-learning loop: ``open_round`` and ``close_round``, with annotation in between.

Each function is a list of steps. A step is idempotent, and the journal has the result of each finished step.
After a kill at any point, running the same function again continues where it stopped: nothing is lost or
doubled, and no image is sent twice.
"""

from __future__ import annotations

from collections.abc import Sequence

from dsmoe_core.errors import WorkspaceError
from pipelines.detectors.mlflow_registry import mirror
from pipelines.rounds.acquisition import acquisition_function
from pipelines.rounds.context import LoopContext
from pipelines.rounds.dispatch import choose, push
from pipelines.rounds.gate import gate_checks
from pipelines.rounds.harvesting import harvest
from pipelines.rounds.pool import require_unlabelled
from pipelines.rounds.promotion import evaluate, promote
from pipelines.rounds.retraining import has_known_classes, make_dataset, train
from pipelines.rounds.shadow import DECISION_STEP, STEP, decide_shadow, predict_with_shadow
from pipelines.settings.workspace import WorkspaceSettings
from pipelines.workspace.journal import RoundRecord
from pipelines.workspace.round_summary import RoundSummary
from pipelines.workspace.workspace import Workspace


def open_round(context: LoopContext) -> RoundSummary:
    """Select images, pre-annotate them and send them to the labelling server.

    If a round is open already, its images that were lost on the server are sent again.

    Raises:
        WorkspaceError: no image is left in the pool, the last round is not closed completely, or another
            process holds the workspace.
        SettingsError: the settings name an unknown acquisition function or gate check.
        StudioError: the labelling server fails.
    """
    workspace = context.workspace
    _check_names(workspace.settings)
    with workspace.locked():
        record = _current_round(workspace)
        number = record.round
        if record.state == "opening":
            context.run_step(number, "choose", lambda: choose(context, record))
            if workspace.registry.shadow() is not None:
                context.run_step(number, STEP, lambda: predict_with_shadow(context, number))
            context.run_step(number, "push", lambda: push(context, number))
            workspace.journal.set_state(number, "open")
        elif record.state == "open":
            push(context, number)
        return workspace.rounds()[number]


def close_round(context: LoopContext, *, partial: bool = False) -> RoundSummary:
    """Harvest the annotations, retrain from the champion, evaluate, and promote or refuse the candidate.

    A shadow of the round, see ``pipelines.rounds.shadow``, is decided on before the training.

    Args:
        partial: close although some images have not come back; they count in the round that is closed after
            they come back.

    Raises:
        WorkspaceError: no round is open, images are still out, or another process holds the workspace.
        ClassBookError: the class book lacks a class of the annotations.
        SettingsError: the settings name an unknown acquisition function or gate check.
        StudioError: the labelling server fails.
    """
    workspace = context.workspace
    _check_names(workspace.settings)
    with workspace.locked():
        number = _round_to_close(workspace.journal.rounds()).round
        dataset = _dataset_version(context, number, partial)
        if workspace.registry.shadow() is not None:
            context.run_step(number, DECISION_STEP, lambda: decide_shadow(context, number))
        model = context.run_step(number, "train", lambda: train(context, number, dataset))["model"]
        metrics = context.run_step(number, "evaluate", lambda: evaluate(context, model))["metrics"]
        result = context.run_step(number, "promote", lambda: promote(context, number, model, metrics))
        workspace.journal.finish_round(number, result)
        mirror(workspace)
        return workspace.rounds()[number]


def _dataset_version(context: LoopContext, number: int, partial: bool) -> str:
    """The dataset version of a round that is being closed.

    Until it is made, every call harvests again, so that a round can be closed once what stopped it was
    corrected in the labelling server. It is made again if the class book lost a class of it before the
    training was finished.
    """
    journal = context.workspace.journal
    done = journal.finished(number, "dataset")
    trained = journal.finished(number, "train") is not None
    if done is None or not (trained or has_known_classes(context, done["dataset_version"])):
        context.run_step(number, "harvest", lambda: harvest(context, number, partial), again=True)
        journal.set_state(number, "closing")
        done = context.run_step(number, "dataset", lambda: make_dataset(context, number), again=True)
    return str(done["dataset_version"])


def _check_names(settings: WorkspaceSettings) -> None:
    """Refuse unknown names before any work is done, as a gate check is used after hours of training."""
    acquisition_function(settings.round.acquisition)
    gate_checks(settings.gate.checks)


def _round_to_close(records: Sequence[RoundRecord]) -> RoundRecord:
    if not records or records[-1].state == "closed":
        last = f"; round {records[-1].round} is closed" if records else ", and there was none so far"
        raise WorkspaceError(f"no round is open{last}", "Open one with `dsmoe round open`.")
    if records[-1].state == "opening":
        raise WorkspaceError(
            f"round {records[-1].round} is not open yet: `dsmoe round open` was interrupted",
            "Run `dsmoe round open` again.",
        )
    return records[-1]


def _current_round(workspace: Workspace) -> RoundRecord:
    """The round that is being opened or is open; else a new one."""
    records = workspace.journal.rounds()
    if records and records[-1].state == "closing":
        raise WorkspaceError(
            f"round {records[-1].round} is partly closed; it has to be closed before the next one is opened",
            "Run `dsmoe round close` again.",
        )
    if not records or records[-1].state == "closed":
        require_unlabelled(workspace)
        book = workspace.class_book().version
        workspace.journal.start_round(len(records), workspace.champion(), book)
    return workspace.journal.rounds()[-1]
