"""dsmoe classes validate, save, log, diff, checkout, publish, rollback, retire"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from pipelines.cli.options import CURRENT_FOLDER, WorkspaceArgument
from pipelines.cli.terminal import console, line

if TYPE_CHECKING:
    from pipelines.workspace.class_books import ClassBooks
    from prompts.class_book import ClassBook
    from prompts.store import Version

InOption = Annotated[
    Path, typer.Option("--workspace", metavar="DIR", help="The workspace; default: the present folder.")
]
AuthorOption = Annotated[
    str | None, typer.Option("--author", metavar="NAME", help="Who does this; default: your login.")
]
VersionArgument = Annotated[
    str | None, typer.Argument(metavar="VERSION", help="First digits of a version.", show_default=False)
]


def validate(
    which: Annotated[Path, typer.Argument(metavar="FILE|WORKSPACE", help="A class book.")] = CURRENT_FOLDER,
) -> None:
    """Check a class book: names, parents, attributes, and that the text encoder reads every text whole.

    A file is checked for the packaged text encoder, a workspace's `classes.yaml` for the workspace's.

    Example: `dsmoe classes validate boards`
    """
    from pipelines.settings import PackagedText, WorkspaceSettings
    from pipelines.workspace.token_limit import cut_by
    from pipelines.workspace.workspace import Workspace
    from prompts.class_book import ClassBook

    text: Any = PackagedText()
    if which.is_dir():
        with Workspace.open(which) as opened:
            settings: WorkspaceSettings = opened.settings
            text, which = settings.detector.text_encoder, opened.class_books.file
    cut = cut_by(text)
    book = ClassBook.load(which, cut=cut)
    line(f"{which} is right: {len(book.classes)} classes, version {book.version}")
    for remark in _remarks(book):
        line(remark)
    if cut is None:
        line(
            f"How much of a text the encoder {text.model} reads is not known here; lengths were not checked."
        )


def save(
    message: Annotated[str, typer.Option("-m", "--message", help="What changed, in a few words.")],
    workspace: WorkspaceArgument = CURRENT_FOLDER,
    author: AuthorOption = None,
) -> None:
    """Make an immutable version of `classes.yaml`, a draft until it is published.

    Example: `dsmoe classes save boards -m "spur: say that it tapers"`
    """
    with _books(workspace) as books:
        known = {version.id for version in books.store.versions()}
        version = books.save(message, _who(author))
    if version.id in known:
        line(f"classes.yaml is version {version.id} already: {_told(version)}")
        return
    line(f"saved version {version.id}, a draft; its parent is {version.parent}")
    line(f"Judge it with `dsmoe classes judge {version.id} --workspace {workspace} --json judge.json`")


def log(
    workspace: WorkspaceArgument = CURRENT_FOLDER,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Show the versions of the class book, and who published, rolled back or retired which, when and why.

    Example: `dsmoe classes log boards`
    """
    with _books(workspace) as books:
        versions, acts, published = books.store.versions(), books.store.history(), books.store.published()
    used = published.id if published else None
    if as_json:
        kept = [{**v._asdict(), "at": v.at.isoformat(), "in_use": v.id == used} for v in versions]
        done = [
            {**a._asdict(), "at": a.at.isoformat(), "report": a.report and a.report.model_dump()}
            for a in acts
        ]
        typer.echo(json.dumps({"published": used, "versions": kept, "history": done}, indent=2))
        return
    if not versions:
        line(
            "No version yet: classes.yaml is published as the first one when the workspace is next written to"
        )
        return
    table = Table("version", "state", "parent", "author", "saved (UTC)", "message")
    for v in versions:
        state = "published, in use" if v.id == used else v.state
        words = (v.id, state, v.parent or "-", v.author, f"{v.at:%Y-%m-%d %H:%M}", v.message)
        table.add_row(*map(Text, words))
    console.print(table)
    for act in acts:
        line(f"{act}{', without a judge' if act.forced else ''}")


def diff(
    one: Annotated[str, typer.Argument(metavar="A", help="A version, published or working.")] = "published",
    other: Annotated[str, typer.Argument(metavar="B", help="The same.")] = "working",
    workspace: InOption = CURRENT_FOLDER,
) -> None:
    """Show what changed between two versions; by default from the published one to `classes.yaml`.

    Example: `dsmoe classes diff 3f2a published --workspace boards`
    """
    from prompts.book_diff import book_diff

    with _books(workspace) as books:
        old, new = books.named(one), books.named(other)
    lines = book_diff(old, new).lines()
    names = f"{one} ({old.version}) to {other} ({new.version})"
    line(f"from {names}" if lines else f"{one} and {other} are the same: version {old.version}")
    for text in lines:
        line(text, style={"+": "green", "-": "red"}.get(text.strip()[0], ""))


def checkout(
    version: Annotated[
        str, typer.Argument(metavar="VERSION", help="First digits of a version, or published.")
    ],
    workspace: InOption = CURRENT_FOLDER,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write it there; default: `classes.yaml`.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Also over edits that are in no version.")] = False,
) -> None:
    """Write a saved version back into `classes.yaml`, comments included, to go on from it.

    Nothing is published by it. A file that is not one of the versions is left alone without --force.

    Example: `dsmoe classes checkout 3f2a --workspace boards --out older.yaml`
    """
    with _books(workspace) as books:
        chosen, changed = books.checkout(version, out, force=force)
        note = books.note() if out is None else None
    when = "now" if changed else "already"
    line(f"{out or 'classes.yaml'} is {when} version {chosen.id}: {_told(chosen)}")
    if note:
        line(note)


def publish(
    version: VersionArgument = None,
    workspace: InOption = CURRENT_FOLDER,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="A report of `dsmoe classes judge`.")
    ] = None,
    force: Annotated[
        str | None, typer.Option("--force", metavar="REASON", help="Publish without one; recorded.")
    ] = None,
    author: AuthorOption = None,
    over: Annotated[
        str | None,
        typer.Option("--over", metavar="VERSION", help="Replace this one, though yours began from another."),
    ] = None,
) -> None:
    """Put a version into use; by default `classes.yaml`, which is saved first.

    It needs a judge's report on this version against the published one, or a reason, which is kept. A judge
    compares the classes that both have; for classes that no model knows yet, give a reason. Where somebody
    else has published since, nothing happens and you are told.

    Example: `dsmoe classes publish --report judged.json --workspace boards`
    """
    from prompts.evaluation_report import TextEvaluationReport

    judged = TextEvaluationReport.load(report) if report is not None else None
    with _books(workspace) as books:
        act, changes = books.publish(
            version, author=_who(author), report=judged, force_reason=force, over=over
        )
    if changes is None:
        line(f"version {act.version} is in use already: {act}")
        return
    line(f"version {act.version} is in use, in the place of {act.before}: {act.reason}")
    if changes.classes_change:
        line(f"The list of classes changed: run `dsmoe classes migrate {workspace}`")


def rollback(
    version: VersionArgument = None,
    workspace: InOption = CURRENT_FOLDER,
    reason: Annotated[str, typer.Option("--reason", help="Kept in the history.")] = "rolled back by hand",
    author: AuthorOption = None,
) -> None:
    """Put the version that was published before back into use, or the one that is named.

    `classes.yaml` goes back too, unless it holds what is not in the version that is left.

    Example: `dsmoe classes rollback --reason "more false alarms" --workspace boards`
    """
    with _books(workspace) as books:
        used = books.store.published()
        act, follows = books.rollback(version, author=_who(author), reason=reason)
    if used is not None and used.id == act.version:
        line(f"version {act.version} is in use already: {act}")
        return
    line(f"version {act.version} is in use again, in the place of {act.before}")
    if follows:
        line("classes.yaml went back too")
    else:
        back = f"dsmoe classes checkout published --workspace {workspace}"
        line(f"classes.yaml holds edits of its own and was left alone; `{back}` brings it back")


def retire(
    version: Annotated[str, typer.Argument(metavar="VERSION", help="First digits of a version.")],
    workspace: InOption = CURRENT_FOLDER,
    reason: Annotated[str, typer.Option("--reason", help="Kept in the history.")] = "retired by hand",
    author: AuthorOption = None,
) -> None:
    """Withdraw a version: no report publishes it any more, and rolling back passes it by.

    Example: `dsmoe classes retire 3f2a --reason "took burrs for spurs" --workspace boards`
    """
    with _books(workspace) as books:
        chosen = books.store.version(version)
        act = books.store.retire(chosen.id, author=_who(author), reason=reason)
    line(f"{act}")


COMMANDS = (validate, save, log, diff, checkout, publish, rollback, retire)


@contextmanager
def _books(path: Path) -> Iterator[ClassBooks]:
    """The class books of a workspace. Not its lock: versions are edited while a round is trained."""
    from pipelines.workspace.workspace import Workspace

    with Workspace.open(path) as opened:
        yield opened.class_books


def _who(author: str | None) -> str:
    from pipelines.workspace.class_books import whoever

    return whoever() if author is None else author


def _told(version: Version) -> str:
    return f"{version.message}, {version.author}, {version.at:%Y-%m-%d %H:%M} UTC"


def _remarks(book: ClassBook) -> Iterator[str]:
    """What is allowed, and yet could be better."""
    bare = [entry.name for entry in book.classes if entry.source == "name"]
    if bare:
        line_of_them = ", ".join(bare)
        yield f"{len(bare)} have their name only; say what they look like: {line_of_them}"
    few = [entry.name for entry in book.classes if entry.source != "name" and not entry.paraphrases]
    if few:
        yield f"{len(few)} have no paraphrases, from which training draws: {', '.join(few)}"
