"""The active-learning loop: ``open_round`` and ``close_round``, with annotation in between.

Each function is a list of steps. A step is idempotent, and the journal has the result of each finished step.
After a kill at any point, running the same function again continues where it stopped: nothing is lost or
doubled, and no image is sent twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dsmoe_core.errors import WorkspaceError
from pipelines.detectors.mlflow_registry import mirror
from pipelines.rounds.acquisition import acquisition_function
from pipelines.rounds.context import LoopContext
from pipelines.rounds.dispatch import choose, push
from pipelines.rounds.gate import gate_checks
from pipelines.rounds.harvesting import harvest
from pipelines.rounds.pool import require_unlabelled
from pipelines.rounds.promotion import SHADOW_DECISION, evaluate, promote
from pipelines.rounds.retraining import has_known_classes, make_dataset, train
from pipelines.rounds.shadow import STEP, decide_shadow, predict_with_shadow
from pipelines.rounds.stopping import measure_agreement
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
    with context.workspace.locked():
        rank_images(context)
        return send_pre_annotations(context)


def rank_images(context: LoopContext) -> RoundSummary:
    """Start a round unless one is open, and select its images; errors as of ``open_round``."""
    workspace = context.workspace
    _check_names(workspace.settings)
    with workspace.locked():
        record = _current_round(workspace)
        if record.state == "opening":
            number = record.round
            context.run_step(number, "choose", lambda: choose(context, record))
            if workspace.registry.shadow() is not None:
                context.run_step(number, STEP, lambda: predict_with_shadow(context, number))
        return workspace.rounds()[record.round]


def send_pre_annotations(context: LoopContext) -> RoundSummary:
    """Send the images of the last round with their pre-annotations, after ``rank_images``.

    Images of an open round that were lost on the server are sent again.

    Raises:
        WorkspaceError: the images of the round are not selected yet, or another process holds the workspace.
        StudioError: the labelling server fails.
    """
    workspace = context.workspace
    with workspace.locked():
        record = _last_round(workspace)
        number = record.round
        if record.state == "opening":
            _require(context, number, "choose")
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
    with workspace.locked():
        _round_to_close(workspace.journal.rounds())
        import_annotations(context, partial=partial)
        make_dataset_version(context)
        train_candidate(context)
        evaluate_candidate(context)
        return promote_candidate(context)


# The steps of closing a round, one by one, for the last round. Once it is closed they change nothing and
# return the results that it was closed with, so a scheduler can repeat them.


def import_annotations(context: LoopContext, *, partial: bool = False) -> dict[str, Any]:
    """Import the annotations of the last round; errors as of ``close_round``.

    Until the dataset version is final, every call harvests again, so that a round can be closed once what
    stopped it was corrected in the labelling server.

    Returns:
        ``counts`` of the round, see ``pipelines.rounds.harvesting.harvest``.
    """
    workspace = context.workspace
    _check_names(workspace.settings)
    with workspace.locked():
        record = _last_round(workspace)
        number = record.round
        if record.state == "closed" or _dataset_is_final(context, number):
            return workspace.journal.finished(number, "harvest") or {}
        _round_to_close([record])
        done = context.run_step(number, "harvest", lambda: harvest(context, number, partial), again=True)
        workspace.journal.set_state(number, "closing")
        return done


def make_dataset_version(context: LoopContext) -> dict[str, Any]:
    """Save the dataset version of the last round, after ``import_annotations``.

    It is made again if the class book lost a class of it before the training was finished.

    Returns:
        ``dataset_version``, and its number of ``images`` and ``boxes``.

    Raises:
        WorkspaceError: the annotations are not imported, or another process holds the workspace.
    """
    workspace = context.workspace
    with workspace.locked():
        number, closed = _closing_round(context, "harvest")
        done = workspace.journal.finished(number, "dataset")
        if done is not None and (closed or _dataset_is_final(context, number)):
            return done
        return context.run_step(number, "dataset", lambda: make_dataset(context, number), again=True)


def train_candidate(context: LoopContext) -> dict[str, Any]:
    """Train the candidate of the last round, after ``make_dataset_version``; decides on a shadow first.

    Returns:
        ``model``: its id.

    Raises:
        WorkspaceError: the dataset version is not made, or another process holds the workspace.
    """
    workspace = context.workspace
    with workspace.locked():
        number, _ = _closing_round(context, "dataset")
        trained = workspace.journal.finished(number, "train") is not None
        if workspace.registry.shadow() is not None and not trained:  # else it is this round's candidate
            context.run_step(number, SHADOW_DECISION, lambda: decide_shadow(context, number))
        dataset = str(_require(context, number, "dataset")["dataset_version"])
        return context.run_step(number, "train", lambda: train(context, number, dataset))


def evaluate_candidate(context: LoopContext) -> dict[str, Any]:
    """Evaluate the candidate of the last round and the champion, after ``train_candidate``.

    Returns:
        ``metrics``: by model id; None for a model if there is no test set.

    Raises:
        WorkspaceError: the candidate is not trained, or another process holds the workspace.
    """
    with context.workspace.locked():
        number, _ = _closing_round(context, "train")
        model = str(_require(context, number, "train")["model"])
        return context.run_step(number, "evaluate", lambda: evaluate(context, model))


def promote_candidate(context: LoopContext) -> RoundSummary:
    """Promote or refuse the candidate of the last round and close the round, after ``evaluate_candidate``.

    Raises:
        WorkspaceError: the candidate is not evaluated, or another process holds the workspace.
    """
    workspace = context.workspace
    with workspace.locked():
        number, closed = _closing_round(context, "evaluate")
        if not closed:
            model = str(_require(context, number, "train")["model"])
            metrics = _require(context, number, "evaluate")["metrics"]
            result = context.run_step(number, "promote", lambda: promote(context, number, model, metrics))
            if result["promoted"] and workspace.registry.card(model).parent is not None:
                result |= context.run_step(number, "agreement", lambda: measure_agreement(context, model))
            workspace.journal.finish_round(number, result)
            mirror(workspace)
        return workspace.rounds()[number]


def _dataset_is_final(context: LoopContext, number: int) -> bool:
    """Whether the dataset version of a round is made and can be trained on, or was."""
    journal = context.workspace.journal
    done = journal.finished(number, "dataset")
    if done is None:
        return False
    trained = journal.finished(number, "train") is not None
    return trained or has_known_classes(context, done["dataset_version"])


def _last_round(workspace: Workspace) -> RoundRecord:
    records = workspace.journal.rounds()
    return records[-1] if records else _round_to_close(records)


def _closing_round(context: LoopContext, before: str) -> tuple[int, bool]:
    """Number of the last round, and whether it is closed.

    Raises:
        WorkspaceError: the step that comes before is not finished.
    """
    record = _last_round(context.workspace)
    _require(context, record.round, before)
    return record.round, record.state == "closed"


def _require(context: LoopContext, number: int, step: str) -> dict[str, Any]:
    """The result of a step that must be finished.

    Raises:
        WorkspaceError: it is not.
    """
    done = context.workspace.journal.finished(number, step)
    if done is None:
        raise WorkspaceError(
            f"step {step!r} of round {number} is not finished", "Run the steps before this one first."
        )
    return done


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
