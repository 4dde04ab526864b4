"""The steps that open a round: selection and pre-annotation of images, and sending them out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, overload

from annotate.studio.protocol import Task
from dsmoe_core.errors import WorkspaceError
from dsmoe_core.schema import ImageRecord
from pipelines.detectors.pre_annotations import current_pre_annotations
from pipelines.rounds.acquisition import acquisition_function
from pipelines.rounds.acquisition.limits import Refusal
from pipelines.rounds.acquisition.selection import ranked_round, sample, seed_round
from pipelines.rounds.candidates import candidates_of_pool, limits_of_round
from pipelines.rounds.context import LoopContext
from pipelines.rounds.pool import pool
from pipelines.workspace.journal import RoundRecord, SentTask
from pipelines.workspace.workspace import Workspace

_SHOWN_MODEL = "shown_model"
"""Value of the journal: the champion whose pre-annotations were sent last."""


def choose(context: LoopContext, record: RoundRecord) -> dict[str, Any]:
    """Step ``choose``: plan the tasks of a round, ranked by the champion or, without one, at random."""
    workspace = context.workspace
    planned = workspace.journal.tasks(record.round)
    if planned:  # by a run that was killed before it journalled the step
        return {"images": len(planned)}
    unlabelled = pool(workspace)
    left_out: dict[str, int] = {}
    if record.champion is None:
        tasks = _seed_tasks(workspace, record.round, unlabelled)
    else:
        tasks, left_out = _ranked_tasks(context, record.round, record.champion, unlabelled)
    workspace.journal.plan_tasks(tasks)
    return {
        "images": len(tasks),
        "pool": len(unlabelled),
        **({"left_out": left_out} if left_out else {}),
    }


def _selection_seed(workspace: Workspace, number: int) -> int:
    return workspace.settings.seed + 1000 * number


def _seed_tasks(workspace: Workspace, number: int, unlabelled: Collection[str]) -> list[SentTask]:
    seed = _selection_seed(workspace, number)
    choices = seed_round(unlabelled, budget=workspace.settings.round.budget, seed=seed)
    return [SentTask(choice.key, number, choice.arm, choice.rank) for choice in choices]


def _ranked_tasks(
    context: LoopContext, number: int, champion: str, unlabelled: dict[str, ImageRecord]
) -> tuple[list[SentTask], dict[str, int]]:
    """Score candidates with the acquisition function of the settings, select, and store their predictions.

    Returns:
        The tasks, and the number of images that stay in the pool by reason.
    """
    workspace, settings = context.workspace, context.workspace.settings.round
    seed = _selection_seed(workspace, number)
    keys = sample(unlabelled, settings.candidates or len(unlabelled), seed=seed)

    candidates = candidates_of_pool(context, champion, unlabelled, keys, seed)
    limits = limits_of_round(context, champion, unlabelled, candidates)
    choices = ranked_round(
        acquisition_function(settings.acquisition).score(candidates),
        budget=settings.budget,
        random_share=settings.random_share,
        blind_share=settings.blind_share,
        seed=seed,
        limits=limits,
    )
    if not choices:
        raise WorkspaceError(
            f"no image of {len(keys)} can be sent: {_reasons(limits.refused)}",
            "Raise round.duplicate_similarity in dsmoe.yaml, or set it to null.",
        )
    context.ensure_predictions(champion, [unlabelled[choice.key] for choice in choices])
    version = workspace.prediction_version(champion)
    tasks = [
        SentTask(c.key, number, c.arm, c.rank, settings.acquisition, c.score, None if c.blind else version)
        for c in choices
    ]
    return tasks, dict(Counter(map(str, limits.refused.values())))


def _reasons(refused: Mapping[str, Refusal]) -> str:
    """The number of images by the reason that keeps them in the pool, as text."""
    counts = Counter(map(str, refused.values()))
    return ", ".join(f"{count} {reason}" for reason, count in counts.items())


def push(context: LoopContext, number: int) -> dict[str, Any]:
    """Step ``push``: send a round's tasks with their pre-annotations.

    Images that are on the server already are not sent twice. Images that came back are not sent again, even
    if their task was deleted, so that no image is annotated twice. If another model is champion now than when
    the round was opened, as after a rollback, open tasks get its pre-annotations.
    """
    workspace = context.workspace
    answered = workspace.journal.harvests()
    tasks = [task for task in workspace.journal.tasks(number) if task.key not in answered]
    tasks = _with_predictions(context, tasks)
    project = context.project()
    tasks += _open_tasks_of_earlier_rounds(context, number, answered, project)
    champion = workspace.champion()
    ids = context.studio.import_tasks(
        project, PlannedTasks(workspace, tasks), progress=context.progress.advance
    )
    workspace.journal.mark_sent(ids)
    workspace.set_project(project)
    workspace.journal.set_value(_SHOWN_MODEL, champion)
    return {"tasks": len(ids)}


def shows_champion(workspace: Workspace, number: int) -> bool:
    """Whether the open tasks of a round were sent with the pre-annotations of the present champion."""
    shown = workspace.journal.value(_SHOWN_MODEL) or workspace.journal.rounds()[number].champion
    return shown == workspace.champion()


def _with_predictions(context: LoopContext, tasks: Sequence[SentTask]) -> list[SentTask]:
    """The tasks, with the champion's predictions where another model's or none are stored."""
    workspace = context.workspace
    champion = workspace.champion()
    versions = {task.version for task in tasks if task.version}
    stored = {version: workspace.prediction_store.lookup(version) for version in versions}
    lost = {
        task.key
        for task in tasks
        if task.version
        and (task.key not in stored[task.version] or task.version.rpartition("+")[0] != champion)
    }
    if champion is None or not lost:
        return list(tasks)
    images = workspace.images_by_key()
    context.ensure_predictions(champion, [images[task.key] for task in tasks if task.key in lost])
    version = workspace.prediction_version(champion)
    return [replace(task, version=version) if task.key in lost else task for task in tasks]


def _open_tasks_of_earlier_rounds(
    context: LoopContext, number: int, answered: Collection[str], project: int
) -> list[SentTask]:
    """Unanswered tasks of earlier rounds, with pre-annotations of the champion.

    Label Studio's label stream shows the pre-annotations of one version only, so the others would appear
    without any. A task that was deleted in the same project stays deleted, as its round was closed without
    it; a new project gets all of them.
    """
    workspace = context.workspace
    champion = workspace.champion()
    tasks = [t for t in workspace.journal.tasks() if t.round < number and t.key not in answered and t.version]
    if tasks and workspace.project() == project:
        open_keys = {task.key for task in context.studio.open_tasks(project)}
        tasks = [task for task in tasks if task.key in open_keys]
    if champion is None or not tasks:
        return []
    images = workspace.images_by_key()
    context.ensure_predictions(champion, [images[task.key] for task in tasks])
    version = workspace.prediction_version(champion)
    return [replace(task, version=version) for task in tasks]


class PlannedTasks(Sequence[Task]):
    """Planned tasks as the labelling server takes them; a prediction is read when its task is accessed."""

    def __init__(self, workspace: Workspace, planned: Sequence[SentTask]) -> None:
        self._planned = planned
        self._images = workspace.images_by_key()
        self._workspace = workspace
        self._book = workspace.class_book()
        versions = {task.version for task in planned if task.version}
        self._predictions = {version: workspace.prediction_store.lookup(version) for version in versions}

    def __len__(self) -> int:
        return len(self._planned)

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> list[Task]: ...
    def __getitem__(self, index: int | slice) -> Task | list[Task]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        task = self._planned[index]
        prediction = None
        if task.version:
            stored = self._predictions[task.version][task.key]
            prediction = current_pre_annotations(self._workspace, stored, self._book)
        image = self._images[task.key]
        return Task(image, task.round, task.arm, task.rank, prediction, task.acquisition, task.score)
