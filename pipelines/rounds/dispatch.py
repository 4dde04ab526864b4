"""The way out: pictures are chosen, pre-labelled and sent to the people who label."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, overload

from annotate.studio.protocol import Task
from dsmoe_core.cross_class_nms import one_a_place
from dsmoe_core.errors import ClassBookError
from dsmoe_core.schema import Picture, PictureFindings
from pipelines.rounds import acquisition
from pipelines.rounds.context import Crew
from pipelines.settings import RoundSettings
from pipelines.workspace.journal import RoundRecord, SentTask
from pipelines.workspace.workspace import Workspace
from prompts.class_book import ClassBook


def pool(workspace: Workspace) -> dict[str, Picture]:
    """Pictures that may still be sent out, by key: of the pool, never sent, not labelled yet."""
    taken = {task.key for task in workspace.journal.tasks()} | set(workspace.journal.harvests())
    return {p.key: p for p in workspace.pictures("pool") if p.key not in taken}


def choose(crew: Crew, record: RoundRecord) -> dict[str, Any]:
    """Rank the pool with the round's champion, or draw from it in a round without one."""
    workspace, settings = crew.workspace, crew.workspace.settings.round
    chosen = workspace.journal.tasks(record.round)
    if chosen:  # by a run that was killed before it could say so
        return {"pictures": len(chosen)}
    left = pool(workspace)
    seed = workspace.settings.seed + 1000 * record.round
    version = None
    if record.champion is None:
        choices = acquisition.seed_round(left, budget=settings.budget, seed=seed)
    else:
        version = workspace.version_of(record.champion)
        drawn = acquisition.sample(left, settings.candidates or len(left), seed=seed)
        found = crew.look(record.champion, [left[key] for key in drawn])
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
    return {"pictures": len(choices), "pool": len(left)}


def push(crew: Crew, number: int) -> dict[str, Any]:
    """Send a round's planned pictures with their pre-labels; what is there already is not doubled.

    What came back is left alone, so that nobody labels it twice where its task is gone.
    """
    workspace = crew.workspace
    known = workspace.journal.harvests()
    planned = [task for task in workspace.journal.tasks(number) if task.key not in known]
    project = crew.project()
    planned += _left_over(crew, number, known, project)
    ids = crew.studio.push(project, Planned(workspace, planned), progress=crew.reporter.advance)
    workspace.journal.mark_sent(ids)
    workspace.journal.set_fact("project", project)
    return {"tasks": len(ids)}


def _left_over(crew: Crew, number: int, known: Collection[str], project: int) -> list[SentTask]:
    """Tasks of earlier rounds that are still out, with this round's model's findings in place of older ones.

    The label stream shows the pre-labels of one version only: others would come without any. A task that
    somebody deleted stays deleted, for its round was closed without it; a new project gets all of them.
    """
    workspace = crew.workspace
    champion = workspace.journal.rounds()[number].champion
    out = [t for t in workspace.journal.tasks() if t.round < number and t.key not in known and t.version]
    if out and workspace.journal.fact("project") == project:
        there = {task.key for task in crew.studio.open_tasks(project)}
        out = [task for task in out if task.key in there]
    if champion is None or not out:
        return []
    pictures = workspace.by_key()
    for _ in crew.look(champion, [pictures[task.key] for task in out]):
        pass  # now they are in the store
    return [replace(task, version=workspace.version_of(champion)) for task in out]


class Planned(Sequence[Task]):
    """Planned tasks as the labelling server takes them; findings are read when their task is asked for."""

    def __init__(self, workspace: Workspace, planned: Sequence[SentTask]) -> None:
        self._planned = planned
        self._pictures = workspace.by_key()
        self._settings = workspace.settings.round
        self._book = workspace.class_book()
        versions = {task.version for task in planned if task.version}
        self._found = {version: workspace.findings_store.lookup(version) for version in versions}

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
        return Task(self._pictures[task.key], task.round, task.arm, task.rank, found)

    def _shown(self, key: str, version: str) -> PictureFindings:
        found = self._found[version][key]
        if not version.endswith(f"+{self._book.version}"):
            found = as_called_now(found, self._book)
        return shown(found, self._settings)


def as_called_now(found: PictureFindings, book: ClassBook) -> PictureFindings:
    """Findings made with another class book under this one's names, without the classes that it has no more.

    A book may be published while a round is open; what was found before is sent all the same.
    """

    def name_of(old: str) -> str | None:
        try:
            return book.resolve(old)
        except ClassBookError:
            return None

    kept = []
    for finding in found.findings:
        probabilities: dict[str, float] = {}
        for old, probability in finding.probabilities.items():
            if (name := name_of(old)) is not None:
                probabilities[name] = max(probability, probabilities.get(name, 0.0))
        if (label := name_of(finding.label)) is not None:
            kept.append(replace(finding, label=label, probabilities=probabilities))
    return replace(found, findings=tuple(kept))


def shown(found: PictureFindings, settings: RoundSettings) -> PictureFindings:
    """The findings sure enough to show, one a place; a page full of wrong boxes is slower than an empty one.

    Its runner-up stands beside it (:attr:`Finding.second_best`): relabelling is quicker than deleting.
    """
    sure = [f for f in found.findings if f.score >= settings.prelabel_score]
    return replace(found, findings=tuple(one_a_place(sure)[: settings.prelabel_most]))
