"""dsmoe classes facts, refine"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from pipelines.cli.language_model import (
    FreshOption,
    LlmModelOption,
    LlmOption,
    NoteOption,
    NotesOption,
    language_model,
)
from pipelines.cli.options import CURRENT_FOLDER, WorkspaceArgument
from pipelines.cli.terminal import TerminalReporter, console, line

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipelines.class_text.refinement_runner import Prepared
    from pipelines.workspace.workspace import Workspace
    from prompts.class_book import ClassBook
    from prompts.llm import CountingModel, LanguageModel
    from prompts.refine import Budget
    from prompts.refinement import Refinement


def facts(workspace: WorkspaceArgument = CURRENT_FOLDER) -> None:
    """Show what is measured of each class's annotated boxes.

    Medians, and in brackets the quartiles. The test set is left out.

    Example: `dsmoe classes facts boards`
    """
    from pipelines.class_text import class_facts
    from pipelines.class_text import facts_text as said
    from pipelines.workspace.workspace import Workspace

    with Workspace.open(workspace) as opened, TerminalReporter() as progress:
        progress.status("measuring what is annotated")
        measured = class_facts.of_workspace(opened, opened.working_book(), progress.advance)
    names = ("class", "boxes", "an image", "size", "aspect", "contrast", "lines", "place")
    table = Table(*names, title="Annotated boxes", title_justify="left", show_lines=True)
    words = (said.number, said.size, said.aspect, said.contrast, said.orientation, said.place)
    for name, one in measured.items():
        cells = [word(one) for word in words] if one.boxes else ["-"] * len(words)
        table.add_row(escape(name), str(one.boxes), *cells)
    console.print(table)
    if not any(one.boxes for one in measured.values()):
        line("Nothing is annotated yet; close a round, or bring labels with `dsmoe init`.")


def refine(
    workspace: WorkspaceArgument = CURRENT_FOLDER,
    pair: Annotated[
        list[str] | None,
        typer.Option("--pair", metavar="A,B", help="Classes to tell apart; default: the most confused."),
    ] = None,
    max_pairs: Annotated[int, typer.Option("--pairs", min=1, help="So many pairs, without --pair.")] = 3,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="In each, every pair has its turn.")] = 3,
    calls: Annotated[
        int | None, typer.Option("--calls", min=1, help="Stop after so many calls of the model.")
    ] = None,
    tokens: Annotated[
        int | None, typer.Option("--tokens", min=1, help="Stop after so many tokens, read and written.")
    ] = None,
    minutes: Annotated[float | None, typer.Option("--minutes", min=0, help="Stop after so long.")] = None,
    images: Annotated[
        int, typer.Option("--images", min=1, help="Labelled images to score texts on, at most.")
    ] = 60,
    notes: NotesOption = None,
    note: NoteOption = None,
    llm: LlmOption = None,
    model: LlmModelOption = None,
    fresh: FreshOption = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the draws of candidates.")] = 42,
) -> None:
    """Sharpen the texts of classes that are confused, and keep what the champion does better with.

    Scored on labelled images, never on the test set. Interrupted, the same command goes on; budgets count
    over all its runs, and are looked at before each question.

    Example: `dsmoe classes refine boards --pair spur,spurious_copper --tokens 20000 --minutes 20`
    """
    from pipelines.class_text import refinement_runner
    from pipelines.services import factory
    from pipelines.settings import Environment
    from pipelines.workspace.workspace import Workspace
    from prompts.notes import read_notes
    from prompts.refine import Budget

    wanted = refinement_runner.Wanted(tuple(_pair(words) for words in pair or ()), max_pairs, images)
    budget = Budget(rounds, calls, tokens, None if minutes is None else 60 * minutes)
    with Workspace.open(workspace) as opened, opened.locked(), TerminalReporter() as progress:
        book = opened.working_book()
        said = read_notes(book, notes, note or ())
        asked = language_model(llm, model, opened.path, progress, fresh=fresh)
        detector = factory.detector_backend(opened, Environment.read())
        ready = refinement_runner.prepare(opened, book, detector, wanted, progress)
        if ready is None:
            progress.line("No two classes are confused; there is nothing to refine.")
            return
        _tell(ready, progress)
        state = _improved(opened, ready, book, said, asked, budget, seed, progress)
        _show(state, book)
        better = refinement_runner.take_over(opened, book, state)
        differs = opened.class_books.note()
    if better is None:
        line("No candidate is better than the class book as it is; classes.yaml is unchanged.")
        return
    line(f"classes.yaml has the texts of candidate {state.best.id}: {book.version} -> {better.version}")
    if differs:
        line(differs)


def _improved(
    opened: Workspace,
    ready: Prepared,
    book: ClassBook,
    notes: dict[str, str],
    asked: tuple[CountingModel, Callable[[CountingModel], LanguageModel]],
    budget: Budget,
    seed: int,
    progress: TerminalReporter,
) -> Refinement:
    """The refinement once its budget is used up.

    Args:
        asked: the model, and what keeps its answers.

    Raises:
        LanguageModelError: see prompts.refine; what is known is kept, and that is said.
    """
    from dsmoe_core.errors import LanguageModelError
    from pipelines.class_text import class_facts, refinement_runner
    from prompts.refine import refine as improve

    progress.status("measuring what is annotated")
    measured = class_facts.of_workspace(opened, book, progress.advance)
    progress.status("asking the language model and scoring its texts")
    known, keep = refinement_runner.known_lines(measured, notes), partial(refinement_runner.keep, opened)
    model, cached = asked
    improving = partial(improve, budget=budget, cached=cached, known=known, seed=seed, keep=keep)
    try:
        return improving(ready.state, book, model, ready.evaluator)
    except LanguageModelError:
        kept = refinement_runner.load(opened, ready.state.id) or ready.state
        progress.line(f"classes.yaml is unchanged; spent so far: {kept.spent}")
        progress.line(f"refine/{kept.id}.json has what was tried, and the next run goes on with it.")
        raise


def _pair(words: str) -> tuple[str, str]:
    from dsmoe_core.errors import SettingsError

    names = [name.strip() for name in words.split(",")]
    if len(names) != 2 or not all(names):
        raise SettingsError(f"--pair is {words!r}; expected two classes", "Write --pair A,B.")
    return names[0], names[1]


def _tell(ready: Prepared, progress: TerminalReporter) -> None:
    """What is refined, on what, and whether it goes on."""
    state = ready.state
    if ready.begun:
        tried = len(state.candidates) - 1
        progress.line(f"refinement {state.id} goes on: {tried} tried, {state.spent}")
    else:
        progress.line(f"refinement {state.id} begins")
    progress.line(f"scored by {state.evaluator}")
    for pair in state.pairs:
        progress.line(
            f"{pair.title}: taken for the other by the detector {pair.found[0]} and {pair.found[1]} times, "
            f"relabelled by people {pair.corrected[0]} and {pair.corrected[1]} times"
        )


def _show(state: Refinement, start: ClassBook) -> None:
    """The candidates with their figures, why it stopped, and the best one's texts beside the start's."""
    front = {c.id for c in state.front()}
    titles = [pair.title for pair in state.pairs]
    names = ("candidate", "from", "for", "mAP@.5", *(f"margin {title}" for title in titles), "total", "")
    table = Table(*map(escape, names), title=f"refinement {state.id}", title_justify="left")
    for one in state.candidates:
        mark = "best" if one is state.best else "not dominated" if one.id in front else ""
        origin = ("-", "the start") if one.parent is None else (str(one.parent), escape(one.pair or "-"))
        figures = (one.scores.mean_ap, *(one.scores.pairs[t] for t in titles), one.scores.total)
        table.add_row(str(one.id), *origin, *(f"{figure:.3f}" for figure in figures), mark)
    console.print(table)
    line(f"stopped: {state.stopped}; {state.spent}")
    for name, wording in state.best.texts.items():
        line(name)
        line(f"- {start.entry(name).description}", "red")
        line(f"+ {wording.description}", "green")
