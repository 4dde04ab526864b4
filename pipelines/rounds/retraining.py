"""The way back: corrections are taken in, learned from, judged, and promoted or refused."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from dsmoe_core.config import FINGERPRINT_EXCLUDED
from dsmoe_core.digest import content_id
from dsmoe_core.errors import WorkspaceError
from pipelines.datasets.relabel import in_book_classes
from pipelines.detectors.backend import evaluate_predictions
from pipelines.detectors.tracking import track_training
from pipelines.rounds.context import LoopContext
from pipelines.rounds.gate import verdict
from pipelines.workspace.dataset_version import DatasetVersion
from pipelines.workspace.journal import SentTask
from pipelines.workspace.registry import Metrics, new_card
from pipelines.workspace.round_summary import count_round

HARVEST_OVERLAP = timedelta(minutes=10)  # one may be stored after a later one, and clocks are put right


def harvest(context: LoopContext, number: int, partial: bool) -> dict[str, Any]:
    """Take in all that came back, from earlier rounds too; refuse while images of this one are out."""
    journal, consensus = context.workspace.journal, context.workspace.settings.studio.consensus
    project, last = context.project(), journal.last_harvest()
    since = min(last, datetime.now(UTC)) - HARVEST_OVERLAP if last else None
    _take_in(context, project, since)
    tasks, known = journal.tasks(number), journal.harvests()
    waiting: set[str] = set()
    anew = since is not None and journal.fact("consensus") != consensus
    if anew or any(task.key not in known for task in tasks):
        waiting = {
            task.key for task in context.studio.open_tasks(project)
        }  # first, for people answer meanwhile
        _take_in(context, project, None)  # before anything is called missing, all is asked for
        known = journal.harvests()
    journal.set_fact("consensus", consensus)  # all that is known was put together in this way
    out = [task for task in tasks if task.key not in known]
    if out and not partial:
        raise _still_out(waiting, out, len(tasks))
    if not any(h.labelled for h in known.values()):
        raise WorkspaceError(
            "no labelled image came back, all were skipped or left in doubt; expected at least one",
            "Annotate some in Label Studio and run the same command again.",
        )
    return {"counts": count_round(tasks, known)}


def _take_in(context: LoopContext, project: int, since: datetime | None) -> None:
    """Record what changed since then; images that the journal did not send are somebody else's."""
    workspace = context.workspace
    ours = {task.key for task in workspace.journal.tasks()}
    back = context.studio.harvest(project, since=since, consensus=workspace.settings.studio.consensus)
    workspace.journal.record_harvests([h for h in back if h.key in ours])
    agreement = {h.key: h.agreement for h in back if h.key in ours and h.agreement is not None}
    context.studio.set_agreement(project, agreement)


def _still_out(waiting: Collection[str], out: Sequence[SentTask], sent: int) -> WorkspaceError:
    """Why a round cannot be closed; a task that somebody deleted will never come back by itself.

    Args:
        waiting: keys of the tasks that were open just before the last answers were taken in.
    """
    gone = sum(task.key not in waiting for task in out)
    if gone:
        return WorkspaceError(
            f"{gone} of {sent} images of round {out[0].round} are no longer in Label Studio, and came back "
            "without an annotation",
            "Send them again: `dsmoe round open`, or close without them: `dsmoe round close --partial`.",
        )
    return WorkspaceError(
        f"{len(out)} of {sent} images of round {out[0].round} are not annotated yet",
        "Annotate them in Label Studio, or close the round without them: `dsmoe round close --partial`.",
    )


def make_dataset(context: LoopContext, number: int) -> dict[str, Any]:
    """The immutable version of everything people said so far."""
    workspace = context.workspace
    book = workspace.class_book()
    labelled = [in_book_classes(p, book.resolve) for p in workspace.annotations().values()]
    before = workspace.journal.finished(number - 1, "dataset") if number else None
    version = DatasetVersion.of(
        labelled,
        book.vocabulary(),
        parent=before["dataset_version"] if before else None,
        test_set=workspace.journal.fact("test_set"),
    )
    version.save(workspace.path / "datasets")
    return {"dataset_version": version.id, "images": len(version.train), "boxes": version.boxes}


def train(context: LoopContext, number: int, dataset: str) -> dict[str, Any]:
    """Retrain from today's champion, which may be another than the one that the round was opened with."""
    workspace, champion = context.workspace, context.workspace.champion()
    registry, book = workspace.registry, workspace.class_book()
    detector = workspace.settings.detector
    training = detector.training_for_round(number)
    settings = [training.model_dump(exclude=FINGERPRINT_EXCLUDED)]
    settings += [s.model_dump() for s in (detector.model, detector.text_encoder)]
    recipe = [dataset, champion, *settings, detector.start, detector.kind]
    recipe += [detector.warm_start] if detector.warm_start else []
    model = f"r{number}-{content_id(recipe)[:8]}"
    if not registry.has(model):
        version = workspace.dataset_version(dataset)  # of the book of its day
        images = [in_book_classes(p, book.resolve) for p in version.labelled(workspace.images_by_key())]
        about = {"dataset": dataset, "images": len(images), "champion": champion}
        with track_training(workspace, model, {**about, **training.model_dump()}) as curves:

            def progress(step: int, steps: int, figures: Mapping[str, float]) -> None:
                context.progress.advance(step, steps, format_losses(figures))
                if curves is not None:
                    curves(step, steps, figures)

            summary = context.detector.fit(
                images=images,
                vocabulary=book.vocabulary(),
                training=training,
                out=registry.folder(model),
                start_from=registry.folder(champion) if champion else None,
                progress=progress,
            )
        registry.register(
            new_card(
                model,
                number=number,
                parent=champion,
                dataset_version=dataset,
                class_book=book.version,
                training={"config": training.model_dump(), **summary},
            )
        )
    return {"model": model}


def format_losses(figures: Mapping[str, float]) -> str:
    """The loss terms among the figures of a training step, on a line."""
    shown = {n: v for n, v in figures.items() if n not in ("learning_rate", "gradient_norm")}
    return " ".join(f"{name} {value:.3f}" for name, value in shown.items())


def evaluate_candidate(context: LoopContext, candidate: str) -> dict[str, Any]:
    """Judge the candidate on the fixed test set; the champion too where its figures are of other words."""
    for model in filter(None, (candidate, context.workspace.champion())):
        _scores(context, model)
    return {}


def _scores(context: LoopContext, model: str) -> Metrics | None:
    """A model's figures on today's test set and class book, from its card where they are there."""
    workspace = context.workspace
    book, test_set = workspace.class_book(), workspace.journal.fact("test_set")
    truth = [in_book_classes(p, book.resolve) for p in workspace.test_set()]
    if not truth:
        return None
    card = workspace.registry.card(model)
    against = f"{test_set}+{book.version}"
    if card.evaluation is None or card.evaluation.evaluated_on != against:
        found = context.predict_for_evaluation(model, [t.image for t in truth])
        scores = evaluate_predictions(found, truth, book.vocabulary(), against)
        card = card.model_copy(update={"evaluation": scores})
        workspace.registry.register(card)
    return card.evaluation


def promote(context: LoopContext, number: int, candidate: str) -> dict[str, Any]:
    """Decide, turn the alias, and return the figures that the round closes with."""
    workspace = context.workspace
    mine = _scores(context, candidate)
    promoted, reason = _decided(context, number, candidate, mine)
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


def _decided(context: LoopContext, number: int, candidate: str, mine: Metrics | None) -> tuple[bool, str]:
    """Whether the candidate is champion now, and why; judged against whoever is champion at this moment.

    People turn the alias while a round is open. A candidate that has it already got it from a run that was
    killed before it could say so, or by hand.
    """
    workspace, head = context.workspace, f"round {number}, "
    champion = workspace.champion()
    if champion == candidate:
        return True, workspace.registry.history()[-1].reason.removeprefix(head)
    best = _scores(context, champion) if champion else None
    promoted, reason = verdict(mine, best, first=champion is None, min_gain=workspace.settings.gate.min_gain)
    if promoted:
        workspace.registry.promote(candidate, head + reason)
    return promoted, reason
