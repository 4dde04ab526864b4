"""Commands `dsmoe classes validate`, `save`, `log`, `diff`, `checkout`, `publish`, `rollback`, `retire`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from pipelines.cli.options import CURRENT_FOLDER, WorkspaceArgument, output_file
from pipelines.cli.terminal import console, line

if TYPE_CHECKING:
    from pipelines.workspace.class_books import ClassBooks
    from prompts.class_book import ClassBook
    from prompts.store import Version

InOption = Annotated[
    Path,
    typer.Option("--workspace", metavar="DIR", help="Folder of the workspace; default: the current folder."),
]
AuthorOption = Annotated[
    str | None,
    typer.Option("--author", metavar="NAME", help="Your name in the history; default: your login."),
]
VersionArgument = Annotated[
    str | None, typer.Argument(metavar="VERSION", help="Version, or its first digits.", show_default=False)
]


def validate(
    which: Annotated[Path, typer.Argument(metavar="FILE|WORKSPACE", help="A class book.")] = CURRENT_FOLDER,
) -> None:
    """Check a class book: names, parents, attributes, and whether texts are too long for the text encoder.

    A file is checked for the packaged text encoder, a workspace's `classes.yaml` for the workspace's encoder.

    Example: `dsmoe classes validate boards`
    """
    from pipelines.settings.detector import PackagedText
    from pipelines.settings.workspace import WorkspaceSettings
    from pipelines.workspace.token_limit import truncation_check
    from pipelines.workspace.workspace import Workspace
    from prompts.class_book import ClassBook

    text: Any = PackagedText()
    if which.is_dir():
        with Workspace.open(which) as opened:
            settings: WorkspaceSettings = opened.settings
            text, which = settings.detector.text_encoder, opened.class_books.file
    check_length = truncation_check(text)
    book = ClassBook.load(which, check_length=check_length)
    line(f"{which} is valid: {len(book.classes)} classes, version {book.version}")
    for warning in _warnings(book):
        line(warning)
    if check_length is None:
        line(f"Lengths were not checked: the token limit of the encoder {text.model} is not known here.")


def save(
    message: Annotated[str, typer.Option("-m", "--message", help="What changed.")],
    workspace: WorkspaceArgument = CURRENT_FOLDER,
    author: AuthorOption = None,
) -> None:
    """Save `classes.yaml` as an immutable version, a draft until it is published.

    Example: `dsmoe classes save boards -m "spur: say that it tapers"`
    """
    with _books(workspace) as books:
        earlier = {version.id for version in books.store.versions()}
        version = books.save(message, _author(author))
    if version.id in earlier:
        line(f"classes.yaml is version {version.id} already: {_format_version(version)}")
        return
    line(f"saved version {version.id}, a draft; its parent is {version.parent}")
    command = f"dsmoe classes evaluate {version.id} --workspace {workspace} --json evaluation.json"
    line(f"Evaluate it with `{command}`")


def log(
    workspace: WorkspaceArgument = CURRENT_FOLDER,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Show the versions of the class book, and the history of publications, rollbacks and retirements.

    Example: `dsmoe classes log boards`
    """
    with _books(workspace) as books:
        versions, events, published = books.store.versions(), books.store.history(), books.store.published()
    published_id = published.id if published else None
    if as_json:
        version_rows = [
            {**v._asdict(), "at": v.at.isoformat(), "in_use": v.id == published_id} for v in versions
        ]
        history = [
            {**e._asdict(), "at": e.at.isoformat(), "report": e.report and e.report.model_dump()}
            for e in events
        ]
        content = {"published": published_id, "versions": version_rows, "history": history}
        typer.echo(json.dumps(content, indent=2))
        return
    if not versions:
        line(
            "No version yet: the next command that changes the workspace publishes classes.yaml as the first"
        )
        return
    table = Table("version", "state", "parent", "author", "saved (UTC)", "message")
    for v in versions:
        state = "published, in use" if v.id == published_id else v.state
        cells = (v.id, state, v.parent or "-", v.author, f"{v.at:%Y-%m-%d %H:%M}", v.message)
        table.add_row(*cells)
    console.print(table)
    for event in events:
        line(f"{event}{', without an evaluation' if event.forced else ''}")


def diff(
    old: Annotated[
        str, typer.Argument(metavar="OLD", help="A version, `published`, or `working` for `classes.yaml`.")
    ] = "published",
    new: Annotated[str, typer.Argument(metavar="NEW", help="The same.")] = "working",
    workspace: InOption = CURRENT_FOLDER,
) -> None:
    """Show the differences between two versions; by default from the published one to `classes.yaml`.

    Example: `dsmoe classes diff 3f2a published --workspace boards`
    """
    from prompts.book_diff import book_diff

    with _books(workspace) as books:
        old_book, new_book = books.lookup(old), books.lookup(new)
    lines = book_diff(old_book, new_book).lines()
    if lines:
        line(f"from {old} ({old_book.version}) to {new} ({new_book.version})")
    else:
        line(f"{old} and {new} are the same: version {old_book.version}")
    for text in lines:
        line(text, style={"+": "green", "-": "red"}.get(text.strip()[0], ""))


def checkout(
    version: Annotated[
        str, typer.Argument(metavar="VERSION", help="Version, its first digits, or `published`.")
    ],
    workspace: InOption = CURRENT_FOLDER,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="File to write; default: `classes.yaml`.", callback=output_file
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite changes that are not saved as a version.")
    ] = False,
) -> None:
    """Write a saved version into `classes.yaml`, comments included, to continue from it.

    It is not published. A file that is not one of the versions is only overwritten with --force.

    Example: `dsmoe classes checkout 3f2a --workspace boards --out older.yaml`
    """
    with _books(workspace) as books:
        chosen, changed = books.checkout(version, out, force=force)
        note = books.unpublished_note() if out is None else None
    when = "now" if changed else "already"
    line(f"{out or 'classes.yaml'} is {when} version {chosen.id}: {_format_version(chosen)}")
    if note:
        line(note)


def publish(
    version: VersionArgument = None,
    workspace: InOption = CURRENT_FOLDER,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Report of `dsmoe classes evaluate`.")
    ] = None,
    force: Annotated[
        str | None,
        typer.Option(
            "--force", metavar="REASON", help="Publish without a report, for this reason; recorded."
        ),
    ] = None,
    author: AuthorOption = None,
    over: Annotated[
        str | None,
        typer.Option(
            "--over",
            metavar="VERSION",
            help="Replace this published version, although yours is based on another one.",
        ),
    ] = None,
) -> None:
    """Publish a version; by default `classes.yaml`, which is saved first.

    This needs an evaluation report on this version against the published one, or a reason, which is recorded.
    The evaluation compares the classes of both versions; for classes that no model was trained on, give a
    reason. If somebody else published another version in the meantime, nothing is changed.

    Example: `dsmoe classes publish --report evaluation.json --workspace boards`
    """
    from prompts.evaluation_report import TextEvaluationReport

    evaluation = TextEvaluationReport.load(report) if report is not None else None
    with _books(workspace) as books:
        event, changes = books.publish(
            version, author=_author(author), report=evaluation, force_reason=force, over=over
        )
    if changes is None:
        line(f"version {event.version} is in use already: {event}")
        return
    line(f"version {event.version} is in use and replaces {event.before}: {event.reason}")
    if changes.class_list_changed:
        line(f"The list of classes changed: run `dsmoe classes migrate {workspace}`")


def rollback(
    version: VersionArgument = None,
    workspace: InOption = CURRENT_FOLDER,
    reason: Annotated[str, typer.Option("--reason", help="Recorded in the history.")] = "rolled back by hand",
    author: AuthorOption = None,
) -> None:
    """Publish the previously published version again, or the given one.

    `classes.yaml` is reset too, unless it differs from the version that is replaced.

    Example: `dsmoe classes rollback --reason "more false alarms" --workspace boards`
    """
    with _books(workspace) as books:
        published = books.store.published()
        event, file_reset = books.rollback(version, author=_author(author), reason=reason)
    if published is not None and published.id == event.version:
        line(f"version {event.version} is in use already: {event}")
        return
    line(f"version {event.version} is in use again and replaces {event.before}")
    if file_reset:
        line("classes.yaml was reset too")
    else:
        command = f"dsmoe classes checkout published --workspace {workspace}"
        line(f"classes.yaml differs from the replaced version and was left as it is; `{command}` replaces it")


def retire(
    version: Annotated[str, typer.Argument(metavar="VERSION", help="Version, or its first digits.")],
    workspace: InOption = CURRENT_FOLDER,
    reason: Annotated[str, typer.Option("--reason", help="Recorded in the history.")] = "retired by hand",
    author: AuthorOption = None,
) -> None:
    """Withdraw a version: it cannot be published with a report, and rollbacks skip it.

    Example: `dsmoe classes retire 3f2a --reason "took burrs for spurs" --workspace boards`
    """
    with _books(workspace) as books:
        chosen = books.store.version(version)
        event = books.store.retire(chosen.id, author=_author(author), reason=reason)
    line(f"{event}")


COMMANDS = (validate, save, log, diff, checkout, publish, rollback, retire)


@contextmanager
def _books(path: Path) -> Iterator[ClassBooks]:
    """The class books of a workspace, without its lock: versions may be edited during a training."""
    from pipelines.workspace.workspace import Workspace

    with Workspace.open(path) as opened:
        yield opened.class_books


def _author(author: str | None) -> str:
    from pipelines.workspace.class_books import current_user

    return current_user() if author is None else author


def _format_version(version: Version) -> str:
    return f"{version.message}, {version.author}, {version.at:%Y-%m-%d %H:%M} UTC"


def _warnings(book: ClassBook) -> Iterator[str]:
    """Weaknesses of a valid class book."""
    without_text = [entry.name for entry in book.classes if entry.source == "name"]
    if without_text:
        yield f"no description yet: {', '.join(without_text)}"
    described = [entry for entry in book.classes if entry.source != "name"]
    without_paraphrases = [entry.name for entry in described if not entry.paraphrases]
    if without_paraphrases:
        yield f"no paraphrases for the training to choose from: {', '.join(without_paraphrases)}"
