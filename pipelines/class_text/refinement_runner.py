"""Runs refinements on a workspace: selects confused pairs and evaluation images, and saves the state.

The state of each refinement is one file, refine/ID.json, rewritten after every candidate. The id is a hash of
the class book, the champion and the request, so that the same command continues an interrupted refinement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from dsmoe_core.atomic import atomic_write
from dsmoe_core.digest import content_id
from dsmoe_core.errors import ClassBookError, DataError, ModelError, WorkspaceError
from dsmoe_core.schema import LabelledImage
from pipelines.class_text.class_facts import ClassFacts
from pipelines.class_text.confusions import (
    ClassPair,
    annotator_corrections,
    confused_pair,
    confused_pairs,
    detector_confusions,
)
from pipelines.class_text.facts_text import facts_line
from pipelines.class_text.text_evaluator import (
    ChampionPredictor,
    TextEvaluator,
    annotated_classes,
    evaluation_images,
)
from pipelines.detectors.backend import DetectorBackend
from pipelines.progress import ProgressReporter
from pipelines.workspace.relabel import relabel_image
from pipelines.workspace.workspace import Workspace
from prompts.class_book import ClassBook
from prompts.draft_prompt import expert_note_line
from prompts.refinement import ConfusedPair, Refinement, apply_descriptions


@dataclass(frozen=True, slots=True)
class RefinementRequest:
    """What to refine.

    Attributes:
        pairs: pairs of classes or aliases; empty: the most confused ones.
        max_pairs: number of pairs, if none are given.
        max_images: evaluation images.
    """

    pairs: tuple[ClassPair, ...] = ()
    max_pairs: int = 3
    max_images: int = 60


@dataclass(frozen=True, slots=True)
class PreparedRefinement:
    """A refinement that is ready to run.

    Attributes:
        resumed: whether an earlier run has scored candidates.
    """

    state: Refinement
    evaluator: TextEvaluator
    resumed: bool


def prepare(
    workspace: Workspace,
    book: ClassBook,
    detector: DetectorBackend,
    request: RefinementRequest,
    progress: ProgressReporter,
) -> PreparedRefinement | None:
    """Load the refinement of this request, or begin one; None if no two classes are confused.

    Raises:
        ModelError: there is no champion, or it cannot be used.
        DataError: no image is labelled, or none has a box of a requested class.
        ClassBookError: the book lacks a class.
    """
    champion = workspace.champion()
    if champion is None:
        raise ModelError("there is no champion whose confusions could be read", "Close a round first.")
    pairs = tuple(_resolve_pair(book, pair) for pair in request.pairs)
    labelled = [relabel_image(item, book.resolve) for item in workspace.annotations().values()]
    if not annotated_classes(labelled):
        raise DataError("no labelled image has a box; expected some to score texts on", "Label some first.")
    card = workspace.registry.card(champion)
    trained_on = {item.key for item in workspace.dataset_version(card.dataset_version).train}
    max_pairs = 0 if pairs else request.max_pairs
    name = content_id([book.version, champion, pairs, max_pairs, request.max_images])[:12]
    saved = load_refinement(workspace, name)
    truth = _saved_images(saved, labelled)
    # Scores of other images, or of other boxes on them, cannot be compared: then the refinement begins again.
    resumable = saved is not None and saved.evaluator == _evaluator_name(champion, truth, trained_on)
    if not resumable:
        truth = evaluation_images(labelled, trained_on, request.max_images)
    folder = workspace.registry.folder(champion)
    predictor = ChampionPredictor(detector, folder, truth, progress.advance)
    if saved is not None and resumable:
        return PreparedRefinement(saved, TextEvaluator(predictor, saved.pairs), bool(saved.candidates))
    progress.status("looking for confused classes")
    selected = _select_pairs(workspace, book, predictor, pairs, request.max_pairs)
    if not selected:
        return None
    state = Refinement(
        id=name,
        book=book.version,
        evaluator=_evaluator_name(champion, truth, trained_on),
        images=tuple(item.image.key for item in truth),
        pairs=tuple(selected),
    )
    return PreparedRefinement(state, TextEvaluator(predictor, selected), resumed=False)


def prompt_context(facts: Mapping[str, ClassFacts], notes: Mapping[str, str]) -> dict[str, list[str]]:
    """Per class, its measured facts and its notes as lines for the prompt."""
    lines = {name: [f"Measured on its annotated boxes: {facts_line(f)}"] for name, f in facts.items()}
    for name, note in notes.items():
        lines.setdefault(name, []).append(expert_note_line(note))
    return lines


def load_refinement(workspace: Workspace, name: str) -> Refinement | None:
    """A refinement by its id; None if there is none.

    Raises:
        WorkspaceError: its file is damaged.
    """
    path = workspace.path / "refine" / f"{name}.json"
    try:
        return Refinement.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValidationError, UnicodeDecodeError):
        raise WorkspaceError(f"{path} is not a refinement", "Remove it and run the command again.") from None


def save_refinement(workspace: Workspace, state: Refinement) -> None:
    """Write refine/ID.json.

    Raises:
        PrerequisiteError: the disk is full.
    """
    atomic_write(workspace.path / "refine" / f"{state.id}.json", state.model_dump_json(indent=1) + "\n")


def apply_best(workspace: Workspace, original: ClassBook, state: Refinement) -> ClassBook | None:
    """Write the best candidate's descriptions into classes.yaml; None if none is better than the original.

    Raises:
        ClassBookError: the class book was changed during the refinement; it is not overwritten.
    """
    if not state.is_improved:
        return None
    path = workspace.path / "classes.yaml"
    current = ClassBook.load(path)
    if current.version != original.version:
        raise ClassBookError(
            f"{path} was changed from version {original.version} to {current.version} during the refinement, "
            "and was not overwritten",
            f"Copy texts by hand from refine/{state.id}.json, or refine the new version.",
        )
    best = apply_descriptions(original, state.best.descriptions)
    best.save(path)
    return best


def _resolve_pair(book: ClassBook, pair: ClassPair) -> ClassPair:
    """The pair with the book's names in the book's order, so that A,B and B,A are the same refinement.

    Raises:
        ClassBookError: a class is not in the book, or both are the same.
    """
    first, second = sorted(map(book.resolve, pair), key=book.names.index)
    if first == second:
        raise ClassBookError(
            f"the pair {','.join(pair)} is one class, {first!r}; expected two", "Name two classes."
        )
    return first, second


def _select_pairs(
    workspace: Workspace,
    book: ClassBook,
    predictor: ChampionPredictor,
    pairs: Sequence[ClassPair],
    max_pairs: int,
) -> list[ConfusedPair]:
    by_detector = detector_confusions(predictor.predict(book), predictor.truth)
    by_annotators = annotator_corrections(workspace, book)
    if pairs:
        return [confused_pair(pair, by_detector, by_annotators) for pair in pairs]
    annotated = annotated_classes(predictor.truth)
    classes = [name for name in book.names if name in annotated]
    return confused_pairs(by_detector, by_annotators, classes, max_pairs)


def _saved_images(saved: Refinement | None, labelled: Sequence[LabelledImage]) -> list[LabelledImage]:
    """Evaluation images of a saved refinement, with their present labels."""
    by_key = {item.image.key: item for item in labelled}
    return [by_key[key] for key in (saved.images if saved else ()) if key in by_key]


def _evaluator_name(champion: str, truth: Sequence[LabelledImage], trained_on: set[str]) -> str:
    """Description of the evaluator; contains a hash of its images and boxes."""
    boxes = [[p.image.key, sorted([*a.box.corners, a.label] for a in p.annotations)] for p in truth]
    count = sum(item.image.key in trained_on for item in truth)
    return (
        f"{champion} on {len(truth)} labelled images, {count} of them from its training ({content_id(boxes)})"
    )
