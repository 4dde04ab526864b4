"""Refines a workspace's class book: what is confused, on which images it is scored, and where it is kept.

Each refinement is one file, refine/ID.json, rewritten after every candidate; its id is made of the class
book, the champion and what was asked for, so that the same command goes on with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from dsmoe_core.atomic import atomic_write, content_id
from dsmoe_core.errors import ClassBookError, DataError, ModelError, WorkspaceError
from dsmoe_core.schema import LabelledImage
from pipelines.class_text.class_facts import ClassFacts
from pipelines.class_text.confusions import Pair, confused, confused_pairs, confusions, corrections
from pipelines.class_text.facts_text import in_words
from pipelines.class_text.text_evaluator import ChampionReader, TextEvaluator, fixed_part, labels_of
from pipelines.datasets.relabel import in_book_classes
from pipelines.detectors.backend import DetectorBackend
from pipelines.progress import ProgressReporter
from pipelines.workspace.workspace import Workspace
from prompts.class_book import ClassBook
from prompts.refinement import Confused, Refinement, worded
from prompts.template import expert_says


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for.

    Attributes:
        pairs: by class or alias; none: those that are confused most.
        max_pairs: so many of them.
        images: to score on, at most.
    """

    pairs: tuple[Pair, ...] = ()
    max_pairs: int = 3
    images: int = 60


@dataclass(frozen=True, slots=True)
class Prepared:
    """A refinement that can begin or go on.

    Attributes:
        begun: whether there were candidates already.
    """

    state: Refinement
    evaluator: TextEvaluator
    begun: bool


def prepare(
    workspace: Workspace,
    book: ClassBook,
    detector: DetectorBackend,
    wanted: Wanted,
    progress: ProgressReporter,
) -> Prepared | None:
    """Find the refinement that goes on, or begin one; None where no two classes are confused.

    Raises:
        ModelError: there is no champion, or it cannot be used.
        DataError: nothing is labelled, or not a class of a pair that is asked for.
        ClassBookError: the book lacks a class.
    """
    champion = workspace.champion()
    if champion is None:
        raise ModelError("there is no champion whose confusions could be read", "Close a round first.")
    pairs = tuple(_pair(book, pair) for pair in wanted.pairs)
    labelled = [in_book_classes(p, book.resolve) for p in workspace.annotations().values()]
    if not labels_of(labelled):
        raise DataError("no labelled image has a box; expected some to score texts on", "Label some first.")
    card = workspace.registry.card(champion)
    learned = {item.key for item in workspace.dataset_version(card.dataset_version).train}
    asked = [book.version, champion, pairs, wanted.max_pairs if not pairs else 0, wanted.images]
    name = content_id(asked)[:12]
    known = load(workspace, name)
    truth = _same_part(known, labelled)
    begun = known is not None and known.evaluator == _evaluator(champion, truth, learned)
    if not begun:
        truth = fixed_part(labelled, learned, wanted.images)
    reader = ChampionReader(detector, workspace.registry.folder(champion), truth, progress.advance)
    if known is not None and begun:
        return Prepared(known, TextEvaluator(reader, known.pairs), bool(known.candidates))
    progress.status("looking for confused classes")
    chosen = _chosen(workspace, book, reader, pairs, wanted.max_pairs)
    if not chosen:
        return None
    state = Refinement(
        id=name,
        book=book.version,
        evaluator=_evaluator(champion, truth, learned),
        images=tuple(p.image.key for p in truth),
        pairs=tuple(chosen),
    )
    return Prepared(state, TextEvaluator(reader, chosen), begun=False)


def known_lines(facts: Mapping[str, ClassFacts], notes: Mapping[str, str]) -> dict[str, list[str]]:
    """Per class, what is measured and noted, as lines for the model."""
    lines = {name: [f"Measured on its annotated boxes: {in_words(one)}"] for name, one in facts.items()}
    for name, note in notes.items():
        lines.setdefault(name, []).append(expert_says(note))
    return lines


def load(workspace: Workspace, name: str) -> Refinement | None:
    """A refinement by its id; None where it has not begun.

    Raises:
        WorkspaceError: its file is none of ours.
    """
    path = workspace.path / "refine" / f"{name}.json"
    try:
        return Refinement.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValidationError, UnicodeDecodeError):
        raise WorkspaceError(f"{path} is no refinement", "Remove it and run the command again.") from None


def keep(workspace: Workspace, state: Refinement) -> None:
    """Write refine/ID.json.

    Raises:
        PrerequisiteError: the disk is full.
    """
    atomic_write(workspace.path / "refine" / f"{state.id}.json", state.model_dump_json(indent=1) + "\n")


def take_over(workspace: Workspace, start: ClassBook, state: Refinement) -> ClassBook | None:
    """Write the best texts into classes.yaml where they are better than the start's; None where none are.

    Raises:
        ClassBookError: somebody changed the class book meanwhile; it is left alone.
    """
    if not state.gained:
        return None
    path = workspace.path / "classes.yaml"
    now = ClassBook.load(path)
    if now.version != start.version:
        raise ClassBookError(
            f"{path} was changed from version {start.version} to {now.version} meanwhile, and is left alone",
            f"Take texts over by hand from refine/{state.id}.json, or refine the new version.",
        )
    best = worded(start, state.best.texts)
    best.save(path)
    return best


def _pair(book: ClassBook, pair: Pair) -> Pair:
    """Under the book's names, in its order, so that A,B and B,A are the same refinement.

    Raises:
        ClassBookError: one is not in the book, or both are the same.
    """
    one, other = sorted(map(book.resolve, pair), key=book.names.index)
    if one == other:
        raise ClassBookError(
            f"the pair {','.join(pair)} is one class, {one!r}; expected two", "Name two classes."
        )
    return one, other


def _chosen(
    workspace: Workspace, book: ClassBook, reader: ChampionReader, pairs: Sequence[Pair], most: int
) -> list[Confused]:
    found = confusions(reader.predict(book), reader.truth)
    corrected = corrections(workspace, book)
    if pairs:
        return [confused(pair, found, corrected) for pair in pairs]
    there = labels_of(reader.truth)
    return confused_pairs(found, corrected, [n for n in book.names if n in there], most)


def _same_part(known: Refinement | None, labelled: Sequence[LabelledImage]) -> list[LabelledImage]:
    """The images that a refinement was scored on, as they are labelled now."""
    by_key = {p.image.key: p for p in labelled}
    return [by_key[key] for key in (known.images if known else ()) if key in by_key]


def _evaluator(champion: str, truth: Sequence[LabelledImage], learned: set[str]) -> str:
    """What scores, in words; other images, or other boxes on them, are another one."""
    boxes = [[p.image.key, sorted([*a.box.corners, a.label] for a in p.annotations)] for p in truth]
    seen = sum(p.image.key in learned for p in truth)
    return (
        f"{champion} on {len(truth)} labelled images, of which it learned from {seen} ({content_id(boxes)})"
    )
