"""The way out: images are chosen, pre-annotated and sent to the people who label."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, overload

from annotate.studio.protocol import Task
from dsmoe_core.errors import ClassBookError
from dsmoe_core.schema import ImageRecord, Prediction
from pipelines.detectors.pre_annotations import pre_annotations
from pipelines.rounds import acquisition
from pipelines.rounds.context import LoopContext
from pipelines.workspace.journal import RoundRecord, SentTask
from pipelines.workspace.workspace import Workspace
from prompts.class_book import ClassBook


def pool(workspace: Workspace) -> dict[str, ImageRecord]:
    """Images that may still be sent out, by key: of the pool, never sent, not labelled yet."""
    taken = {task.key for task in workspace.journal.tasks()} | set(workspace.journal.harvests())
    return {p.key: p for p in workspace.images("pool") if p.key not in taken}


def choose(context: LoopContext, record: RoundRecord) -> dict[str, Any]:
    """Rank the pool with the round's champion, or draw from it in a round without one."""
    workspace, settings = context.workspace, context.workspace.settings.round
    chosen = workspace.journal.tasks(record.round)
    if chosen:  # by a run that was killed before it could say so
        return {"images": len(chosen)}
    left = pool(workspace)
    seed = workspace.settings.seed + 1000 * record.round
    version = None
    if record.champion is None:
        choices = acquisition.seed_round(left, budget=settings.budget, seed=seed)
    else:
        version = workspace.prediction_version(record.champion)
        drawn = acquisition.sample(left, settings.candidates or len(left), seed=seed)
        found = context.predict(record.champion, [left[key] for key in drawn])
        uncertainty = {f.key: f.uncertainty for f in found}
        choices = acquisition.ranked_round(
            uncertainty,
            budget=settings.budget,
            random_share=settings.random_share,
            blind_share=settings.blind_share,
            seed=seed,
        )
    workspace.journal.plan_tasks(
        [
            SentTask(c.key, record.round, c.arm, c.rank, c.uncertainty, None if c.blind else version)
            for c in choices
        ]
    )
    return {"images": len(choices), "pool": len(left)}


def push(context: LoopContext, number: int) -> dict[str, Any]:
    """Send a round's planned images with their pre-annotations; what is there already is not doubled.

    What came back is left alone, so that nobody labels it twice where its task is gone.
    """
    workspace = context.workspace
    known = workspace.journal.harvests()
    planned = [task for task in workspace.journal.tasks(number) if task.key not in known]
    project = context.project()
    planned += _left_over(context, number, known, project)
    ids = context.studio.import_tasks(project, Planned(workspace, planned), progress=context.progress.advance)
    workspace.journal.mark_sent(ids)
    workspace.journal.set_fact("project", project)
    return {"tasks": len(ids)}


def _left_over(context: LoopContext, number: int, known: Collection[str], project: int) -> list[SentTask]:
    """Open tasks of earlier rounds, with the detections of this round's model.

    The label stream shows the pre-annotations of one version only: others would come without any. A task that
    somebody deleted stays deleted, for its round was closed without it; a new project gets all of them.
    """
    workspace = context.workspace
    champion = workspace.journal.rounds()[number].champion
    out = [t for t in workspace.journal.tasks() if t.round < number and t.key not in known and t.version]
    if out and workspace.journal.fact("project") == project:
        there = {task.key for task in context.studio.open_tasks(project)}
        out = [task for task in out if task.key in there]
    if champion is None or not out:
        return []
    images = workspace.images_by_key()
    for _ in context.predict(champion, [images[task.key] for task in out]):
        pass  # now they are in the store
    return [replace(task, version=workspace.prediction_version(champion)) for task in out]


class Planned(Sequence[Task]):
    """Planned tasks as the labelling server takes them; detections are read when their task is asked for."""

    def __init__(self, workspace: Workspace, planned: Sequence[SentTask]) -> None:
        self._planned = planned
        self._images = workspace.images_by_key()
        self._settings = workspace.settings.round
        self._book = workspace.class_book()
        versions = {task.version for task in planned if task.version}
        self._found = {version: workspace.prediction_store.lookup(version) for version in versions}

    def __len__(self) -> int:
        return len(self._planned)

    @overload
    def __getitem__(self, place: int) -> Task: ...
    @overload
    def __getitem__(self, place: slice) -> list[Task]: ...
    def __getitem__(self, place: int | slice) -> Task | list[Task]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        task = self._planned[place]
        found = self._shown(task.key, task.version) if task.version else None
        return Task(self._images[task.key], task.round, task.arm, task.rank, found)

    def _shown(self, key: str, version: str) -> Prediction:
        found = self._found[version][key]
        if not version.endswith(f"+{self._book.version}"):
            found = as_called_now(found, self._book)
        return pre_annotations(found, self._settings)


def as_called_now(found: Prediction, book: ClassBook) -> Prediction:
    """A prediction made with another class book, renamed to this one; classes it lacks are left out.

    A book may be published while a round is open; what was found before is sent all the same.
    """

    def name_of(old: str) -> str | None:
        try:
            return book.resolve(old)
        except ClassBookError:
            return None

    kept = []
    for detection in found.detections:
        probabilities: dict[str, float] = {}
        for old, probability in detection.probabilities.items():
            if (name := name_of(old)) is not None:
                probabilities[name] = max(probability, probabilities.get(name, 0.0))
        if (label := name_of(detection.label)) is not None:
            kept.append(replace(detection, label=label, probabilities=probabilities))
    return replace(found, detections=tuple(kept))
