"""dsmoe classes list, draft, migrate; the commands on versions are registered here too."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from pipelines.cli import class_evaluation, class_versions
from pipelines.cli.language_model import (
    FreshOption,
    LlmModelOption,
    LlmOption,
    NoteOption,
    NotesOption,
    language_model,
)
from pipelines.cli.options import CURRENT_FOLDER, PortOption, WorkspaceArgument
from pipelines.cli.terminal import TerminalReporter, console, line

app = typer.Typer(help="The class book: what each defect looks like, in words.", no_args_is_help=True)
app.command("judge")(class_evaluation.judge)
for command in class_versions.COMMANDS:
    app.command()(command)


@app.command("list")
def list_(workspace: WorkspaceArgument = CURRENT_FOLDER) -> None:
    """Show the published classes with their descriptions.

    Example: `dsmoe classes list boards`
    """
    from pipelines.workspace.workspace import Workspace

    with Workspace.open(workspace) as opened:
        vocabulary, note = opened.class_book().vocabulary(), opened.class_books.note()
    table = Table("class", "parent", "description", title=f"class book {vocabulary.version}")
    for text in vocabulary:
        table.add_row(text.name, text.parent or "-", text.description)
    console.print(table)
    if note:
        line(note)


@app.command("draft")
def draft(
    workspace: WorkspaceArgument = CURRENT_FOLDER,
    names: Annotated[
        str | None, typer.Option("--classes", metavar="A,B,C", help="Which classes; default: all.")
    ] = None,
    notes: NotesOption = None,
    note: NoteOption = None,
    llm: LlmOption = None,
    model: LlmModelOption = None,
    fresh: FreshOption = False,
) -> None:
    """Ask a language model for class descriptions and write them into `classes.yaml`.

    What is measured of each class's annotated boxes goes into the question, and what experts note.

    Example: `dsmoe classes draft boards --classes spur --note "spur: a thorn with a tip, on a track"`
    """
    from pipelines.class_text import class_facts
    from pipelines.class_text.facts_text import in_words
    from pipelines.workspace.workspace import Workspace
    from prompts.draft import draft as write
    from prompts.notes import read_notes

    with Workspace.open(workspace) as opened, opened.locked(), TerminalReporter() as progress:
        book = opened.working_book()
        chosen = [n.strip() for n in names.split(",")] if names else book.names
        said = read_notes(book, notes, note or ())
        bare, cached = language_model(llm, model, opened.path, progress, fresh=fresh)
        asked = cached(bare)
        progress.status("measuring what is annotated")
        measured = class_facts.of_workspace(opened, book, progress.advance)
        progress.status("asking the language model")
        facts = {name: in_words(one) for name, one in measured.items()}
        written = write(book, chosen, asked, facts, notes=said, progress=progress.advance)
        written.save(opened.path / "classes.yaml")
        differs = opened.class_books.note()
    for name in dict.fromkeys(map(book.resolve, chosen)):
        line(f"{name}: {written.entry(name).description}")
    line(str(asked.usage), style="dim")
    if differs:
        line(differs)


@app.command("migrate")
def migrate(
    workspace: WorkspaceArgument = CURRENT_FOLDER,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")
    ] = False,
    port: PortOption = None,
) -> None:
    """Bring the labelling project to the published class book: new, renamed and removed classes.

    A class that is now another's alias is renamed, in annotations and pre-annotations too. A class that is
    gone is removed, unless annotations have it. `dsmoe round open` does the same.

    Example: `dsmoe classes migrate boards --dry-run`
    """
    from pipelines.services import factory
    from pipelines.settings import Environment
    from pipelines.workspace.workspace import Workspace

    with Workspace.open(workspace) as opened, opened.locked(), TerminalReporter() as progress:
        studio, _ = factory.start_studio(opened, Environment.read(), progress.status, port)
        book, title, note = opened.class_book(), opened.settings.title, opened.class_books.note()
        words, owner = book.vocabulary(), opened.mark()
        change = studio.class_change(title, words, owner=owner, resolve=book.resolve)
        if not dry_run:
            studio.ensure_project(title, words, owner=owner, resolve=book.resolve, progress=progress.advance)
    if note:
        line(note)
    if not change.added and not change.obsolete:
        console.print("The labelling project has the classes of the class book; nothing is to be done.")
        return
    table = Table("class", "what becomes of it", "annotations", "sets of pre-annotations")
    for name in change.added:
        table.add_row(name, "added", "-", "-")
    fates = {old: f"renamed to {new}" for old, new in change.renamed.items()}
    for name, fate in (fates | dict.fromkeys(change.removed, "removed")).items():
        counts = change.annotations.get(name, 0), change.pre_annotations.get(name, 0)
        table.add_row(name, fate, *map(str, counts))
    console.print(table)
    if dry_run:
        change.check()
        console.print("Nothing was changed.")
