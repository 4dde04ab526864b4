"""Commands `dsmoe classes facts` and `dsmoe classes refine`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from pipelines.cli.language_model import (
    FreshOption,
    LlmModelOption,
    LlmOption,
    NoteOption,
    NotesOption,
    language_model,
)
from pipelines.cli.options import CURRENT_FOLDER, MAX_SEED, WorkspaceArgument, finite
from pipelines.cli.terminal import TerminalReporter, console, line

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipelines.class_text.refinement_runner import PreparedRefinement
    from pipelines.workspace.workspace import Workspace
    from prompts.class_book import ClassBook
    from prompts.llm import CountingModel, LanguageModel
    from prompts.refine import Budget
    from prompts.refinement import Refinement

PairOption = Annotated[
    list[str] | None,
    typer.Option("--pair", metavar="A,B", help="Classes to distinguish; default: the most confused ones."),
]
CallsOption = Annotated[
    int | None, typer.Option("--calls", min=1, help="Stop after this number of calls of the model.")
]
TokensOption = Annotated[
    int | None,
    typer.Option("--tokens", min=1, help="Stop after this number of prompt and completion tokens."),
]
MinutesOption = Annotated[
    float | None,
    typer.Option("--minutes", min=0, help="Stop after this number of minutes.", callback=finite),
]


def facts(workspace: WorkspaceArgument = CURRENT_FOLDER) -> None:
    """Show statistics of each class's annotated boxes.

    Medians, with the quartiles in brackets. The test set is left out.

    Example: `dsmoe classes facts boards`
    """
    from pipelines.class_text import facts_text
    from pipelines.class_text.class_facts import workspace_facts
    from pipelines.workspace.workspace import Workspace

    with Workspace.open(workspace) as opened, TerminalReporter() as progress:
        progress.status("measuring annotated boxes")
        facts_by_class = workspace_facts(opened, opened.working_book(), progress.advance)
    headings = ("class", "boxes", "per image", "size", "aspect", "contrast", "lines", "place")
    table = Table(*headings, title="Annotated boxes", title_justify="left", show_lines=True)
    columns = (
        facts_text.number,
        facts_text.size,
        facts_text.aspect,
        facts_text.contrast,
        facts_text.orientation,
        facts_text.place,
    )
    for name, of_class in facts_by_class.items():
        cells = [column(of_class) for column in columns] if of_class.boxes else ["-"] * len(columns)
        table.add_row(name, str(of_class.boxes), *cells)
    console.print(table)
    if not any(of_class.boxes for of_class in facts_by_class.values()):
        line("Nothing is annotated yet; close a round, or import labels with `dsmoe init`.")


def refine(
    workspace: WorkspaceArgument = CURRENT_FOLDER,
    pair: PairOption = None,
    max_pairs: Annotated[int, typer.Option("--pairs", min=1, help="Number of pairs, without --pair.")] = 3,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, help="Number of rounds; each has one candidate per pair.")
    ] = 3,
    calls: CallsOption = None,
    tokens: TokensOption = None,
    minutes: MinutesOption = None,
    images: Annotated[
        int, typer.Option("--images", min=1, help="Maximum number of labelled images to score texts on.")
    ] = 60,
    notes: NotesOption = None,
    note: NoteOption = None,
    llm: LlmOption = None,
    model: LlmModelOption = None,
    fresh: FreshOption = False,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=MAX_SEED, help="Seed of the sampling of candidates.")
    ] = 42,
) -> None:
    """Improve the descriptions of confused classes with a language model, scored by the champion.

    Scores are measured on labelled images, never on the test set. The same command continues an interrupted
    refinement. Budgets count over all its runs, and are checked before each call of the model.

    Example: `dsmoe classes refine boards --pair spur,spurious_copper --tokens 20000 --minutes 20`
    """
    from pipelines.class_text import refinement_runner
    from pipelines.detectors.registry import detector_backend
    from pipelines.settings.environment import Environment
    from pipelines.workspace.workspace import Workspace
    from prompts.notes import read_notes
    from prompts.refine import Budget

    pairs = tuple(_parse_pair(text) for text in pair or ())
    request = refinement_runner.RefinementRequest(pairs, max_pairs, images)
    budget = Budget(rounds, calls, tokens, None if minutes is None else 60 * minutes)
    with Workspace.open(workspace) as opened, opened.locked(), TerminalReporter() as progress:
        book = opened.working_book()
        expert_notes = read_notes(book, notes, note or ())
        model_and_cache = language_model(llm, model, opened.path, progress, fresh=fresh)
        detector = detector_backend(opened, Environment.read())
        prepared = refinement_runner.prepare(opened, book, detector, request, progress)
        if prepared is None:
            progress.line("No two classes are confused; there is nothing to refine.")
            return
        _print_start(prepared, progress)
        state = _run(opened, prepared, book, expert_notes, model_and_cache, budget, seed, progress)
        _print_candidates(state, book)
        refined = refinement_runner.apply_best(opened, book, state)
        difference = opened.class_books.unpublished_note()
    if refined is None:
        line("No candidate is better than the present class book; classes.yaml is unchanged.")
        return
    line(f"classes.yaml has the texts of candidate {state.best.id}: {book.version} -> {refined.version}")
    if difference:
        line(difference)


def _run(
    opened: Workspace,
    prepared: PreparedRefinement,
    book: ClassBook,
    notes: dict[str, str],
    model_and_cache: tuple[CountingModel, Callable[[CountingModel], LanguageModel]],
    budget: Budget,
    seed: int,
    progress: TerminalReporter,
) -> Refinement:
    """Run a refinement until its budget is used up.

    Raises:
        LanguageModelError: see prompts.refine; the state is saved, and a line tells where.
    """
    from dsmoe_core.errors import LanguageModelError
    from pipelines.class_text import refinement_runner
    from pipelines.class_text.class_facts import workspace_facts
    from prompts.refine import refine as run_refinement

    progress.status("measuring annotated boxes")
    facts_by_class = workspace_facts(opened, book, progress.advance)
    progress.status("generating descriptions and scoring them")
    model, add_cache = model_and_cache
    try:
        return run_refinement(
            prepared.state,
            book,
            model,
            prepared.evaluator,
            budget=budget,
            add_cache=add_cache,
            context=refinement_runner.prompt_context(facts_by_class, notes),
            seed=seed,
            save=partial(refinement_runner.save_refinement, opened),
        )
    except LanguageModelError:
        saved = refinement_runner.load_refinement(opened, prepared.state.id) or prepared.state
        progress.line(f"classes.yaml is unchanged; spent so far: {saved.cost}")
        progress.line(f"refine/{saved.id}.json has the candidates so far; the next run continues with it.")
        raise


def _parse_pair(text: str) -> tuple[str, str]:
    from dsmoe_core.errors import SettingsError

    names = [name.strip() for name in text.split(",")]
    if len(names) != 2 or not all(names):
        raise SettingsError(f"--pair is {text!r}; expected two classes", "Write --pair A,B.")
    return names[0], names[1]


def _print_start(prepared: PreparedRefinement, progress: TerminalReporter) -> None:
    state = prepared.state
    if prepared.resumed:
        tried = len(state.candidates) - 1
        progress.line(f"refinement {state.id} continues: {tried} tried, {state.cost}")
    else:
        progress.line(f"refinement {state.id} begins")
    progress.line(f"scored by {state.evaluator}")
    for pair in state.pairs:
        progress.line(
            f"{pair.title}: confused by the detector {pair.detector[0]} and {pair.detector[1]} times, "
            f"relabelled by annotators {pair.annotators[0]} and {pair.annotators[1]} times"
        )


def _print_candidates(state: Refinement, original: ClassBook) -> None:
    """Print the candidates with their scores, the stop reason, and the best and the old descriptions."""
    front = {candidate.id for candidate in state.pareto_front()}
    titles = [pair.title for pair in state.pairs]
    headings = ("candidate", "from", "for", "mAP@.5", *(f"margin {title}" for title in titles), "total", "")
    table = Table(*headings, title=f"refinement {state.id}", title_justify="left")
    for candidate in state.candidates:
        mark = "best" if candidate is state.best else "not dominated" if candidate.id in front else ""
        is_original = candidate.parent is None
        parent = "-" if is_original else str(candidate.parent)
        pair = "original" if is_original else candidate.pair or "-"
        scores = candidate.scores
        metrics = (scores.mean_ap, *(scores.pair_margins[title] for title in titles), scores.total)
        table.add_row(str(candidate.id), parent, pair, *(f"{metric:.3f}" for metric in metrics), mark)
    console.print(table)
    line(f"stopped: {state.stop_reason}; {state.cost}")
    for name, text in state.best.descriptions.items():
        line(name)
        line(f"- {original.entry(name).description}", "red")
        line(f"+ {text.description}", "green")
