"""Commands `dsmoe classes list`, `draft` and `migrate`; also registers the commands of other modules."""

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

app = typer.Typer(
    help="The class book: classes with descriptions of what they look like.", no_args_is_help=True
)
app.command("evaluate")(class_evaluation.evaluate)
for command in class_versions.COMMANDS:
    app.command()(command)


@app.command("list")
def list_(workspace: WorkspaceArgument = CURRENT_FOLDER) -> None:
    """Show the published classes with their descriptions.

    Example: `dsmoe classes list boards`
    """
    from pipelines.workspace.workspace import Workspace

    with Workspace.open(workspace) as opened:
        vocabulary, note = opened.class_book().vocabulary(), opened.class_books.unpublished_note()
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
        str | None, typer.Option("--classes", metavar="A,B,C", help="Classes to draft; default: all.")
    ] = None,
    notes: NotesOption = None,
    note: NoteOption = None,
    llm: LlmOption = None,
    model: LlmModelOption = None,
    fresh: FreshOption = False,
) -> None:
    """Draft class descriptions with a language model and write them into `classes.yaml`.

    The prompt contains statistics of each class's annotated boxes and the notes of experts.

    Example: `dsmoe classes draft boards --classes spur --note "spur: a thorn with a tip, on a track"`
    """
    from pipelines.class_text.class_facts import workspace_facts
    from pipelines.class_text.facts_text import facts_line
    from pipelines.workspace.workspace import Workspace
    from prompts.draft import draft as draft_descriptions
    from prompts.notes import read_notes

    with Workspace.open(workspace) as opened, opened.locked(), TerminalReporter() as progress:
        book = opened.working_book()
        chosen = [n.strip() for n in names.split(",")] if names else book.names
        expert_notes = read_notes(book, notes, note or ())
        client, add_cache = language_model(llm, model, opened.path, progress, fresh=fresh)
        cached = add_cache(client)
        progress.status("measuring annotated boxes")
        facts = workspace_facts(opened, book, progress.advance)
        progress.status("waiting for the language model")
        lines = {name: facts_line(of_class) for name, of_class in facts.items()}
        drafted = draft_descriptions(
            book, chosen, cached, lines, notes=expert_notes, progress=progress.advance
        )
        drafted.save(opened.path / "classes.yaml")
        difference = opened.class_books.unpublished_note()
    for name in dict.fromkeys(map(book.resolve, chosen)):
        line(f"{name}: {drafted.entry(name).description}")
    line(str(cached.usage), style="dim")
    if difference:
        line(difference)


@app.command("migrate")
def migrate(
    workspace: WorkspaceArgument = CURRENT_FOLDER,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")
    ] = False,
    port: PortOption = None,
) -> None:
    """Update the labelling project to the published class book: new, renamed and removed classes.

    A class whose name is now an alias of another class is renamed, in annotations and pre-annotations too.
    A class that is not in the class book is removed, unless it has annotations. `dsmoe round open` does the
    same.

    Example: `dsmoe classes migrate boards --dry-run`
    """
    from pipelines.services import factory
    from pipelines.settings.environment import Environment
    from pipelines.workspace.workspace import Workspace

    with Workspace.open(workspace) as opened, opened.locked(), TerminalReporter() as progress:
        studio, _ = factory.start_studio(opened, Environment.read(), progress.status, port)
        book, title, note = opened.class_book(), opened.settings.title, opened.class_books.unpublished_note()
        vocabulary, owner, project = book.vocabulary(), opened.unique_id(), opened.project()
        change = studio.class_change(title, vocabulary, owner=owner, resolve=book.resolve, project=project)
        if not dry_run:
            studio.ensure_project(
                title,
                vocabulary,
                owner=owner,
                resolve=book.resolve,
                project=project,
                progress=progress.advance,
            )
    if note:
        line(note)
    if not change.added and not change.obsolete:
        console.print("The labelling project has the classes of the class book; there is nothing to do.")
        return
    table = Table("class", "change", "annotations", "sets of pre-annotations")
    for name in change.added:
        table.add_row(name, "added", "-", "-")
    changes = {old: f"renamed to {new}" for old, new in change.renamed.items()}
    for name, text in (changes | dict.fromkeys(change.removed, "removed")).items():
        counts = change.annotations.get(name, 0), change.pre_annotations.get(name, 0)
        table.add_row(name, text, *map(str, counts))
    console.print(table)
    if dry_run:
        change.check()
        console.print("Nothing was changed.")
