"""The step ``harvest`` of a round: records the annotations of the labelling server, with an account.

It can be repeated any number of times: what is recorded already is not recorded twice.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from dsmoe_core.data.import_account import merged_accounts
from dsmoe_core.errors import ClassBookError, WorkspaceError
from dsmoe_core.schema import Arm, Harvest, Prediction
from pipelines.detectors.pre_annotations import current_pre_annotations
from pipelines.rounds.context import LoopContext
from pipelines.workspace.journal import SentTask
from pipelines.workspace.round_summary import count_round
from pipelines.workspace.workspace import Workspace

HARVEST_OVERLAP = timedelta(minutes=10)
"""How far a harvest reaches back before the last one: annotations may be stored late, clocks may be set."""


class UnknownClass(NamedTuple):
    """A class in the annotations of an image that the class book lacks.

    Attributes:
        task_id: in Label Studio; None for labels that were imported with the images.
    """

    label: str
    image: str
    task_id: int | None
    annotation_id: int

    def __str__(self) -> str:
        where = f"task {self.task_id}, annotation {self.annotation_id}" if self.task_id else "imported labels"
        return f"class {self.label!r} of {self.image} ({where})"


def record_new_annotations(context: LoopContext) -> None:
    """Record the annotations that are new on the labelling server, without closing a round.

    Raises:
        WorkspaceBusyError: another process holds the workspace.
        StudioError: the labelling server fails.
    """
    with context.workspace.locked():
        _record_annotations(context, context.project(), _start_of_harvest(context))


def _start_of_harvest(context: LoopContext) -> datetime | None:
    """The time from which on annotations may be new; None for all."""
    last = context.workspace.journal.last_harvest()
    return min(last, datetime.now(UTC)) - HARVEST_OVERLAP if last else None


def harvest(context: LoopContext, number: int, partial: bool) -> dict[str, Any]:
    """Step ``harvest``: record all new annotations, of earlier rounds too.

    Args:
        partial: allow that images of this round have not come back.

    Raises:
        WorkspaceError: images of this round are out, or no image at all is labelled.
        ClassBookError: the class book lacks a class of the annotations.
        StudioError: the labelling server fails.
    """
    workspace, journal = context.workspace, context.workspace.journal
    consensus = workspace.settings.studio.consensus
    project, since = context.project(), _start_of_harvest(context)
    _record_annotations(context, project, since)
    tasks, harvests = journal.tasks(number), journal.harvests()
    open_keys: set[str] = set()
    consensus_changed = since is not None and journal.value("consensus") != consensus
    incomplete = any(task.key not in harvests for task in tasks)
    if consensus_changed or incomplete or unknown_classes(workspace, harvests):
        # The open tasks are listed first: what is answered in between must not look deleted.
        open_keys = {task.key for task in context.studio.open_tasks(project)}
        _record_annotations(context, project, None)
        harvests = journal.harvests()
    journal.set_value("consensus", consensus)  # all recorded annotations were merged in this way
    _save_account(workspace, number, tasks, harvests)
    missing = [task for task in tasks if task.key not in harvests]
    if missing and not partial:
        raise _still_out(open_keys, missing, len(tasks))
    _check_classes(unknown_classes(workspace, harvests))
    if not any(h.labelled for h in harvests.values()):
        raise WorkspaceError(
            "no labelled image came back, all were skipped or left in doubt; expected at least one",
            "See `dsmoe round notes`, annotate some in Label Studio and run the same command again.",
        )
    return {"counts": count_round(tasks, harvests, _hidden_pre_annotations(workspace, number, tasks))}


def _hidden_pre_annotations(
    workspace: Workspace, number: int, tasks: Sequence[SentTask]
) -> dict[str, Prediction]:
    """The hidden pre-annotations of the blind audit by image key, with the present class names."""
    record, book = workspace.journal.rounds()[number], workspace.class_book()
    blind = [task.key for task in tasks if task.version is None and task.arm is not Arm.SEED]
    if record.champion is None or not blind:
        return {}
    stored = workspace.prediction_store.lookup(f"{record.champion}+{record.class_book}")
    return {key: current_pre_annotations(workspace, stored[key], book) for key in blind if key in stored}


def unknown_classes(workspace: Workspace, harvests: Mapping[str, Harvest]) -> list[UnknownClass]:
    """Classes of labelled images that the published class book lacks, one entry for each image and class."""
    book, images = workspace.class_book(), workspace.images_by_key()
    task_ids = {task.key: task.task_id for task in workspace.journal.tasks()}
    unknown = []
    for key, item in harvests.items():
        for label in sorted({a.label for a in item.annotations}) if item.labelled else ():
            try:
                book.resolve(label)
            except ClassBookError:
                entry = UnknownClass(label, images[key].name, task_ids.get(key), item.annotation_id)
                unknown.append(entry)
    return unknown


def _check_classes(unknown: Sequence[UnknownClass]) -> None:
    """Refuse annotations with classes that the class book lacks.

    Raises:
        ClassBookError: the first one is in its message, all are in its details.
    """
    if not unknown:
        return
    more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
    raise ClassBookError(
        f"the class book lacks {unknown[0]}{more}",
        "Correct it in Label Studio, or add the class to the class book, publish it and run "
        "`dsmoe classes migrate`; then run `dsmoe round close` again.",
        details=[str(entry) for entry in unknown] if more else (),
    )


def _record_annotations(context: LoopContext, project: int, since: datetime | None) -> None:
    """Record annotations that changed since then, of images that this workspace sent."""
    workspace = context.workspace
    sent = {task.key for task in workspace.journal.tasks()}
    harvests = [
        h
        for h in context.studio.harvest(project, since=since, consensus=workspace.settings.studio.consensus)
        if h.key in sent
    ]
    workspace.journal.record_harvests(harvests)
    agreement = {h.key: h.agreement for h in harvests if h.agreement is not None}
    context.studio.set_agreement(project, agreement)


def _save_account(
    workspace: Workspace, number: int, tasks: Sequence[SentTask], harvests: Mapping[str, Harvest]
) -> None:
    """Write the account of the images of a round that came back."""
    accounts = workspace.journal.harvest_accounts()
    came_back = [task.key for task in tasks if task.key in harvests and task.key in accounts]
    workspace.save_round_account(number, merged_accounts(accounts[key] for key in came_back))


def _still_out(open_keys: Collection[str], missing: Sequence[SentTask], sent: int) -> WorkspaceError:
    """The error for a round whose images have not all come back.

    Args:
        open_keys: keys of the tasks that were open before the last harvest; a missing image without an open
            task was deleted and will not come back.
    """
    deleted = sum(task.key not in open_keys for task in missing)
    if deleted:
        return WorkspaceError(
            f"{deleted} of {sent} images of round {missing[0].round} are no longer in Label Studio, and came "
            "back without an annotation",
            "Send them again: `dsmoe round open`, or close without them: `dsmoe round close --partial`.",
        )
    return WorkspaceError(
        f"{len(missing)} of {sent} images of round {missing[0].round} are not annotated yet",
        "Annotate them in Label Studio, or close the round without them: `dsmoe round close --partial`.",
    )
