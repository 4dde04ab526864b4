"""The journey of an image: ranked, sent out, corrected, learned from, judged.

Two functions, ``open_round`` and ``close_round``, with people in between. Each is a list of steps; a step is
idempotent, and the journal knows which are done. Killed anywhere and run again: nothing is lost, nothing is
doubled, no image is sent twice.
"""

from __future__ import annotations

from dsmoe_core.errors import WorkspaceError
from pipelines.rounds.context import LoopContext
from pipelines.rounds.dispatch import choose, pool, push
from pipelines.rounds.retraining import evaluate_candidate, harvest, make_dataset, promote, train
from pipelines.workspace.journal import RoundRecord
from pipelines.workspace.round_summary import RoundSummary
from pipelines.workspace.workspace import Workspace


def open_round(context: LoopContext) -> RoundSummary:
    """Choose images, pre-annotation them, send them out.

    What the server lost of an open round goes out again.

    Raises:
        WorkspaceError: no image is left in the pool, or another process works on the workspace.
        StudioError: the labelling server fails.
    """
    workspace = context.workspace
    with workspace.locked():
        record = _current(workspace)
        number = record.round
        if record.state == "opening":
            context.run_step(number, "choose", lambda: choose(context, record))
            context.run_step(number, "push", lambda: push(context, number))
            workspace.journal.set_state(number, "open")
        elif record.state == "open":
            push(context, number)
        return workspace.rounds()[number]


def close_round(context: LoopContext, *, partial: bool = False) -> RoundSummary:
    """Take the corrections in, retrain from the champion, judge, and promote or refuse.

    The champion is the one of that moment: it may have been turned by hand since the round was opened.

    Args:
        partial: close although some images have not come back; they count when they do.

    Raises:
        WorkspaceError: no round is open, or images are still out.
        StudioError: the labelling server fails.
    """
    workspace = context.workspace
    with workspace.locked():
        records = workspace.journal.rounds()
        if not records or records[-1].state in ("opening", "closed"):
            raise WorkspaceError("no round is open", "Open one with `dsmoe round open`.")
        number = records[-1].round
        context.run_step(number, "harvest", lambda: harvest(context, number, partial))
        workspace.journal.set_state(number, "closing")
        dataset = context.run_step(number, "dataset", lambda: make_dataset(context, number))[
            "dataset_version"
        ]
        model = context.run_step(number, "train", lambda: train(context, number, dataset))["model"]
        context.run_step(number, "evaluate", lambda: evaluate_candidate(context, model))
        result = context.run_step(number, "promote", lambda: promote(context, number, model))
        workspace.journal.finish_round(number, result)
        return workspace.rounds()[number]


def _current(workspace: Workspace) -> RoundRecord:
    """The round that is being opened or is open; else a new one."""
    records = workspace.journal.rounds()
    if records and records[-1].state == "closing":
        raise WorkspaceError(
            f"round {records[-1].round} is half closed; expected it to be closed before the next one",
            "Run `dsmoe round close` again.",
        )
    if not records or records[-1].state == "closed":
        if not pool(workspace):
            raise WorkspaceError(
                "no image is left in the pool; all were sent out", "Add images, or stop here."
            )
        book = workspace.class_book().version
        workspace.journal.start_round(len(records), workspace.champion(), book)
    return workspace.journal.rounds()[-1]
