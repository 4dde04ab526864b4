"""The file behind ``prompts.store``: two tables that only grow, versions and what people did with them.

A version's state, and which one is published, follow from the second table.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from dsmoe_core.errors import ClassBookError, PrerequisiteError, WorkspaceError
from prompts.class_book import ClassBook
from prompts.evaluation_report import TextEvaluationReport

State = Literal["draft", "published", "retired"]
Action = Literal["publish", "rollback", "retire"]
LAYOUT_VERSION = 1
_WAIT_S = 20.0
_TABLES = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS versions (
    id TEXT PRIMARY KEY, parent TEXT, message TEXT NOT NULL, author TEXT NOT NULL, at TEXT NOT NULL,
    text TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS acts (
    number INTEGER PRIMARY KEY, action TEXT NOT NULL, version TEXT NOT NULL REFERENCES versions(id),
    before TEXT, reason TEXT NOT NULL, forced INTEGER NOT NULL, report TEXT, author TEXT NOT NULL,
    at TEXT NOT NULL
);
"""
_TABLES += "".join(
    f"CREATE TRIGGER IF NOT EXISTS no_{verb}_of_{table} BEFORE {verb} ON {table} "
    f"BEGIN SELECT RAISE(ABORT, '{table} never change'); END;\n"
    for table in ("versions", "acts")
    for verb in ("UPDATE", "DELETE")
)
_TABLES += f"PRAGMA user_version = {LAYOUT_VERSION}; COMMIT;"


class Version(NamedTuple):
    """One version of a class book.

    Attributes:
        id: hash of its content, ``ClassBook.version``.
        parent: the version that was published when it was saved; None for the first.
        state: draft until it is published for the first time; retired when a person withdrew it.
        text: YAML as people wrote it, comments included.
    """

    id: str
    parent: str | None
    message: str
    author: str
    at: datetime
    state: State
    text: str

    @property
    def book(self) -> ClassBook:
        """What it says.

        Raises:
            ClassBookError: the text is not what it was when it was saved.
        """
        book = ClassBook.parsed(self.text, f"version {self.id}")
        if book.version != self.id:
            raise ClassBookError(f"version {self.id} of the class book is damaged", "Restore it from a copy.")
        return book


class Act(NamedTuple):
    """What somebody did with a version.

    Attributes:
        before: the version that was published until then.
        forced: published on a person's word, without a report that lets it.
        report: what the version was published on; None where there was none.
    """

    action: Action
    version: str
    before: str | None
    reason: str
    forced: bool
    report: TextEvaluationReport | None
    author: str
    at: datetime

    def __str__(self) -> str:
        verb = {"publish": "published", "rollback": "rolled back to", "retire": "retired"}[self.action]
        return f"{self.author} {verb} {self.version} at {self.at:%Y-%m-%d %H:%M:%S} UTC ({self.reason})"


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """The file to read from; where there is none yet, nothing is in it.

    Raises:
        WorkspaceError: the file is no database of ours.
    """
    with _opened(path, "rw") if path.exists() else _empty() as db:
        yield db


@contextmanager
def writing(path: Path) -> Iterator[sqlite3.Connection]:
    """One transaction that nobody else writes beside; the file is made if it is missing.

    Raises:
        WorkspaceError: the file is no database of ours. PrerequisiteError: the disk is full.
    """
    with _opened(path, "rwc") as db:
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
        except BaseException:
            db.rollback()
            raise
        db.commit()


def version_ids(db: sqlite3.Connection) -> list[str]:
    """All, oldest first."""
    return [row[0] for row in db.execute("SELECT id FROM versions ORDER BY rowid")]


def version_of(db: sqlite3.Connection, version: str) -> Version:
    """A version by its whole id.

    Raises:
        ClassBookError: there is none.
    """
    row = db.execute(
        "SELECT id, parent, message, author, at, text FROM versions WHERE id = ?", (version,)
    ).fetchone()
    if row is None:
        raise ClassBookError(f"{version!r} is no version of this class book", "See `dsmoe classes log`.")
    last = next((act.action for act in reversed(acts(db)) if act.version == version), None)
    state: State = "draft" if last is None else "retired" if last == "retire" else "published"
    name, parent, message, author, at, text = row
    return Version(name, parent, message, author, datetime.fromisoformat(at), state, text)


def add_version(db: sqlite3.Connection, version: str, message: str, author: str, text: str) -> None:
    """A new version, whose parent is the published one; one that is there already stays as it is."""
    published = in_use(db)
    row = (version, published and published.version, message.strip(), author.strip(), _now(), text)
    db.execute("INSERT OR IGNORE INTO versions VALUES (?, ?, ?, ?, ?, ?)", row)


def acts(db: sqlite3.Connection) -> list[Act]:
    """What people did, oldest first."""
    columns = "action, version, before, reason, forced, report, author, at"
    rows = db.execute(f"SELECT {columns} FROM acts ORDER BY number")  # noqa: S608  # names of our own
    return [_as_act(row) for row in rows]


def in_use(db: sqlite3.Connection) -> Act | None:
    """The act that put the present version in use: this is the alias ``published``."""
    return next((act for act in reversed(acts(db)) if act.action != "retire"), None)


def add_act(
    db: sqlite3.Connection,
    action: Action,
    version: str,
    *,
    author: str,
    reason: str,
    forced: bool = False,
    report: TextEvaluationReport | None = None,
) -> Act:
    """Write down what somebody does.

    Raises:
        ClassBookError: no author or no reason is given.
    """
    need(author, "author", "Give a name.")
    need(reason, "reason", "Say why, in a few words.")
    current = in_use(db)
    row = (action, version, current and current.version, reason.strip(), forced)
    kept = report.model_dump_json() if report else None
    db.execute(
        "INSERT INTO acts (action, version, before, reason, forced, report, author, at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (*row, kept, author.strip(), _now()),
    )
    return acts(db)[-1]


def need(value: str, what: str, remedy: str) -> None:
    """Refuse what is empty.

    Raises:
        ClassBookError: it is.
    """
    if not value.strip():
        raise ClassBookError(f"the {what} is empty", remedy)


def _as_act(row: Sequence[Any]) -> Act:
    action, version, before, reason, forced, report, author, at = row
    read = TextEvaluationReport.model_validate_json(report) if report else None
    return Act(action, version, before, reason, bool(forced), read, author, datetime.fromisoformat(at))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


@contextmanager
def _empty() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        db.executescript(_TABLES)
        yield db


@contextmanager
def _opened(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    address = f"{path.resolve().as_uri()}?mode={mode}"
    try:
        with closing(sqlite3.connect(address, timeout=_WAIT_S, isolation_level=None, uri=True)) as db:
            found = int(db.execute("PRAGMA user_version").fetchone()[0])
            if found > LAYOUT_VERSION:
                raise WorkspaceError(
                    f"{path} is of version {found}; expected {LAYOUT_VERSION}",
                    "Open it with the dsmoe that made it.",
                )
            if found == 0:  # new, or its maker was killed before it was whole
                db.executescript(_TABLES)
            yield db
    except sqlite3.Error as error:
        raise _explained(path, error) from error


def _explained(path: Path, error: sqlite3.Error) -> Exception:
    """The database's complaint as a line that a person can act on, where it is not our bug."""
    text = str(error)
    if "full" in text or "disk I/O" in text:
        return PrerequisiteError(
            f"disk full: {path} could not be written ({text})",
            "Free some space and run the same command again.",
        )
    if any(word in text for word in ("not a database", "malformed", "unable to open", "locked", "readonly")):
        return WorkspaceError(
            f"the versions of the class book in {path} cannot be used: {text}",
            "Restore the file from a copy, or put it aside: then classes.yaml is published as the first one.",
        )
    return error
