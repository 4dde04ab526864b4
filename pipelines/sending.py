"""The way out: pictures are chosen, pre-labelled and sent to the people who label."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from annotate.studio.protocol import Task
from dsmoe_core.schema import Picture, PictureFindings
from pipelines import acquire
from pipelines.crew import Crew
from pipelines.journal import RoundRecord, SentTask
from pipelines.workspace import Workspace


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
        choices = acquire.seed_round(left, budget=settings.budget, seed=seed)
    else:
        version = workspace.version_of(record.champion)
        drawn = acquire.sample(left, settings.candidates or len(left), seed=seed)
        found = crew.look(record.champion, [left[key] for key in drawn])
        uncertainty = {f.key: f.uncertainty for f in found}
        choices = acquire.ranked_round(
            uncertainty, budget=settings.budget, random_share=settings.random_share, seed=seed
        )
    workspace.journal.plan_tasks(
        [SentTask(c.key, record.round, c.arm, c.rank, c.uncertainty, version) for c in choices]
    )
    return {"pictures": len(choices), "pool": len(left)}


def push(crew: Crew, number: int) -> dict[str, Any]:
    """Send a round's planned pictures with their pre-labels; what is there already is not doubled.

    What came back is left alone, so that nobody labels it twice where its task is gone.
    """
    workspace = crew.workspace
    known = workspace.journal.harvests()
    planned = [task for task in workspace.journal.tasks(number) if task.key not in known]
    pictures = workspace.by_key()
    versions = {task.version for task in planned if task.version}
    found = {v: workspace.findings(v) for v in versions}
    tasks = [
        Task(
            pictures[t.key],
            number,
            t.arm,
            t.rank,
            _prelabels(crew, found[t.version][t.key]) if t.version else None,
        )
        for t in planned
    ]
    ids = crew.studio.push(crew.project(), tasks, progress=crew.reporter.advance)
    workspace.journal.mark_sent(ids)
    return {"tasks": len(ids)}


def _prelabels(crew: Crew, found: PictureFindings) -> PictureFindings:
    """The findings sure enough to show; a page full of wrong boxes is slower than an empty one."""
    settings = crew.workspace.settings.round
    shown = [f for f in found.findings if f.score >= settings.prelabel_score]
    return replace(found, findings=tuple(shown[: settings.prelabel_most]))
