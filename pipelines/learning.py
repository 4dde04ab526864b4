"""The way back: corrections are taken in, learned from, judged, and promoted or refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from math import isfinite
from typing import Any

from dsmoe_core.errors import ModelError, WorkspaceError
from dsmoe_core.schema import LabelledPicture
from pipelines.atomic import content_id
from pipelines.crew import Crew
from pipelines.dataset_version import DatasetVersion
from pipelines.detection import judge
from pipelines.gate import verdict
from pipelines.journal import RoundRecord
from pipelines.registry import Scores, new_card
from pipelines.rounds import count_round

HARVEST_OVERLAP = timedelta(minutes=1)  # an annotation may be stored a moment after a later one


def harvest(crew: Crew, number: int, partial: bool) -> dict[str, Any]:
    """Take in all that came back, from earlier rounds too; refuse while pictures of this one are out."""
    workspace = crew.workspace
    last = workspace.journal.last_harvest()
    since = last - HARVEST_OVERLAP if last else None
    ours = {task.key for task in workspace.journal.tasks()}
    back = [h for h in crew.studio.harvest(crew.project(), since=since) if h.key in ours]
    workspace.journal.record(back)
    known = workspace.journal.harvests()
    tasks = workspace.journal.tasks(number)
    out = [task for task in tasks if task.key not in known]
    if out and not partial:
        raise WorkspaceError(
            f"{len(out)} of {len(tasks)} pictures of round {number} are not annotated yet",
            "Annotate them in Label Studio, or close the round without them: `dsmoe round close --partial`.",
        )
    if all(h.skipped for h in known.values()):
        raise WorkspaceError(
            "no annotated picture came back, all were skipped; expected at least one",
            "Annotate some in Label Studio and run the same command again.",
        )
    return {"counts": count_round(tasks, known)}


def make_dataset(crew: Crew, number: int) -> dict[str, Any]:
    """The immutable version of everything people said so far."""
    workspace = crew.workspace
    book = workspace.class_book()
    labelled = [in_the_books_words(p, book.resolve) for p in workspace.annotations().values()]
    before = workspace.journal.finished(number - 1, "dataset") if number else None
    version = DatasetVersion.of(
        labelled,
        book.vocabulary(),
        parent=before["dataset_version"] if before else None,
        test_set=workspace.journal.fact("test_set"),
    )
    version.save(workspace.path / "datasets")
    return {"dataset_version": version.id, "pictures": len(version.train), "boxes": version.boxes}


def in_the_books_words(labelled: LabelledPicture, resolve: Callable[[str], str]) -> LabelledPicture:
    """The same annotations under the class book's own names, which ``resolve`` finds."""
    return replace(
        labelled, annotations=tuple(replace(a, label=resolve(a.label)) for a in labelled.annotations)
    )


def train(crew: Crew, record: RoundRecord, dataset: str) -> dict[str, Any]:
    """Retrain from the champion on the whole dataset version."""
    workspace = crew.workspace
    registry, vocabulary = workspace.registry, workspace.class_book().vocabulary()
    detector = workspace.settings.detector
    training = detector.training_of(record.round)
    settings = [s.model_dump() for s in (training, detector.model, detector.text_encoder)]
    recipe = [dataset, record.champion, *settings, detector.start, detector.kind]
    recipe += [detector.warm_start] if detector.warm_start else []
    model = f"r{record.round}-{content_id(recipe)[:8]}"
    if not registry.has(model):
        summary = crew.detection.fit(
            pictures=workspace.dataset_version(dataset).labelled(workspace.by_key()),
            vocabulary=vocabulary,
            training=training,
            out=registry.folder(model),
            start_from=registry.folder(record.champion) if record.champion else None,
            progress=lambda step, steps, losses: crew.reporter.advance(step, steps, _losses(losses.items())),
        )
        _refuse_diverged(model, summary)
        registry.register(
            new_card(
                model,
                number=record.round,
                parent=record.champion,
                dataset_version=dataset,
                class_book=vocabulary.version,
                training={"config": training.model_dump(), **summary},
            )
        )
    return {"model": model}


def _refuse_diverged(model: str, summary: Mapping[str, Any]) -> None:
    """Stop before a model of nonsense is registered; with other settings it is another model.

    Raises:
        ModelError: a loss is not finite.
    """
    bad = [name for name, value in summary.get("losses", {}).items() if not isfinite(value)]
    if bad:
        raise ModelError(
            f"the training of {model} diverged: its loss {bad[0]} is not a finite number",
            "Lower detector.training.learning_rate in dsmoe.yaml and close the round again.",
        )


def _losses(losses: Iterable[tuple[str, float]]) -> str:
    return " ".join(f"{name} {value:.3f}" for name, value in losses)


def judge_candidate(crew: Crew, candidate: str, champion: str | None) -> dict[str, Any]:
    """Judge the candidate on the fixed test set; the champion too where its figures are of other words."""
    for model in filter(None, (candidate, champion)):
        _scores(crew, model)
    return {}


def _scores(crew: Crew, model: str) -> Scores | None:
    """A model's figures on today's test set and class book, from its card where they are there."""
    workspace = crew.workspace
    truth, test_set = workspace.test_set(), workspace.journal.fact("test_set")
    if not truth:
        return None
    book = workspace.class_book()
    card = workspace.registry.card(model)
    against = f"{test_set}+{book.version}"
    if card.evaluation is None or card.evaluation.judged_on != against:
        found = crew.look(model, [t.picture for t in truth])
        scores = judge(found, truth, book.vocabulary(), against)
        card = card.model_copy(update={"evaluation": scores})
        workspace.registry.register(card)
    return card.evaluation


def promote(crew: Crew, number: int, candidate: str, champion: str | None) -> dict[str, Any]:
    """Decide, turn the alias, and return the figures that the round closes with."""
    workspace = crew.workspace
    mine = _scores(crew, candidate)
    best = _scores(crew, champion) if champion else None
    promoted, reason = verdict(mine, best, first=champion is None, min_gain=workspace.settings.gate.min_gain)
    if promoted:
        workspace.registry.promote(candidate, f"round {number}, {reason}")
    harvest = workspace.journal.finished(number, "harvest") or {}
    dataset = workspace.journal.finished(number, "dataset") or {}
    result = {
        "counts": harvest["counts"],
        **dataset,
        "model": candidate,
        "promoted": promoted,
        "reason": reason,
    }
    if mine is not None:
        result |= {"map50": mine.map50, "map": mine.map}
    return result
