"""SQLite file of ``prompts.store``: two append-only tables, of versions and of the events on them.

The state of a version, and which version is published, follow from the events.
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
FORMAT_VERSION = 2
_LOCK_TIMEOUT_S = 20.0
_TABLES = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS versions (
    id TEXT PRIMARY KEY, parent TEXT, message TEXT NOT NULL, author TEXT NOT NULL, at TEXT NOT NULL,
    text TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY, action TEXT NOT NULL, version TEXT NOT NULL REFERENCES versions(id),
    before TEXT, reason TEXT NOT NULL, forced INTEGER NOT NULL, report TEXT, author TEXT NOT NULL,
    at TEXT NOT NULL
);
"""
_TABLES += "".join(
    f"CREATE TRIGGER IF NOT EXISTS no_{verb}_of_{table} BEFORE {verb} ON {table} "
    f"BEGIN SELECT RAISE(ABORT, '{table} never change'); END;\n"
    for table in ("versions", "events")
    for verb in ("UPDATE", "DELETE")
)
_TABLES += f"PRAGMA user_version = {FORMAT_VERSION}; COMMIT;"


class Version(NamedTuple):
    """One version of a class book.

    Attributes:
        id: hash of its content, ``ClassBook.version``.
        parent: id of the version that was published when this one was saved; None for the first.
        at: time of saving, UTC.
        state: draft before its first publication; retired after a person withdrew it.
        text: the YAML as it was saved, comments included.
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
        """The class book of this version.

        Raises:
            ClassBookError: the text changed since it was saved.
        """
        book = ClassBook.parse(self.text, f"version {self.id}")
        if book.version != self.id:
            raise ClassBookError(f"version {self.id} of the class book is damaged", "Restore it from a copy.")
        return book


class VersionEvent(NamedTuple):
    """A publication, rollback or retirement of a version.

    Attributes:
        version: id of the version.
        before: id of the version that was published before the event.
        forced: published with a person's reason instead of a report.
        report: the report that it was published on; None if there was none.
        at: time of the event, UTC.
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
def read_transaction(path: Path) -> Iterator[sqlite3.Connection]:
    """Connection for reading; if the file does not exist, an empty database.

    Raises:
        WorkspaceError: the file is not a version database.
    """
    with _connect(path, "rw") if path.exists() else _empty_database() as db:
        yield db


@contextmanager
def write_transaction(path: Path) -> Iterator[sqlite3.Connection]:
    """Connection with one exclusive write transaction; the file is created if it does not exist.

    Raises:
        WorkspaceError: the file is not a version database. PrerequisiteError: the disk is full.
    """
    with _connect(path, "rwc") as db:
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
        except BaseException:
            db.rollback()
            raise
        db.commit()


def version_ids(db: sqlite3.Connection) -> list[str]:
    """Ids of all versions, oldest first."""
    return [row[0] for row in db.execute("SELECT id FROM versions ORDER BY rowid")]


def read_version(db: sqlite3.Connection, version: str) -> Version:
    """The version with this id.

    Raises:
        ClassBookError: there is none.
    """
    row = db.execute(
        "SELECT id, parent, message, author, at, text FROM versions WHERE id = ?", (version,)
    ).fetchone()
    if row is None:
        raise ClassBookError(f"{version!r} is not a version of this class book", "See `dsmoe classes log`.")
    last = next((e.action for e in reversed(read_events(db)) if e.version == version), None)
    state: State = "draft" if last is None else "retired" if last == "retire" else "published"
    name, parent, message, author, at, text = row
    return Version(name, parent, message, author, datetime.fromisoformat(at), state, text)


def add_version(db: sqlite3.Connection, version: str, message: str, author: str, text: str) -> None:
    """Insert a version whose parent is the published one; does nothing if it exists."""
    current = publishing_event(db)
    row = (version, current and current.version, message.strip(), author.strip(), _now(), text)
    db.execute("INSERT OR IGNORE INTO versions VALUES (?, ?, ?, ?, ?, ?)", row)


def read_events(db: sqlite3.Connection) -> list[VersionEvent]:
    """All events, oldest first."""
    columns = "action, version, before, reason, forced, report, author, at"
    rows = db.execute(f"SELECT {columns} FROM events ORDER BY number")  # noqa: S608  # constant columns
    return [_as_event(row) for row in rows]


def publishing_event(db: sqlite3.Connection) -> VersionEvent | None:
    """The event that published the present version; None before the first publication."""
    return next((e for e in reversed(read_events(db)) if e.action != "retire"), None)


def add_event(
    db: sqlite3.Connection,
    action: Action,
    version: str,
    *,
    author: str,
    reason: str,
    forced: bool = False,
    report: TextEvaluationReport | None = None,
) -> VersionEvent:
    """Insert an event.

    Raises:
        ClassBookError: the author or the reason is empty.
    """
    require_text(author, "author", "Give a name.")
    require_text(reason, "reason", "Say why, in a few words.")
    current = publishing_event(db)
    row = (action, version, current and current.version, reason.strip(), forced)
    report_json = report.model_dump_json() if report else None
    db.execute(
        "INSERT INTO events (action, version, before, reason, forced, report, author, at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (*row, report_json, author.strip(), _now()),
    )
    return read_events(db)[-1]


def require_text(value: str, what: str, remedy: str) -> None:
    """Refuse an empty text.

    Raises:
        ClassBookError: the value is empty or white space.
    """
    if not value.strip():
        raise ClassBookError(f"the {what} is empty", remedy)


def _as_event(row: Sequence[Any]) -> VersionEvent:
    action, version, before, reason, forced, report_json, author, at = row
    report = TextEvaluationReport.model_validate_json(report_json) if report_json else None
    time = datetime.fromisoformat(at)
    return VersionEvent(action, version, before, reason, bool(forced), report, author, time)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


_DAMAGED = "Restore the file from a copy, or move it away: then classes.yaml is published as the first one."


@contextmanager
def _empty_database() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        db.executescript(_TABLES)
        yield db


@contextmanager
def _connect(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    uri = f"{path.resolve().as_uri()}?mode={mode}"
    try:
        with closing(sqlite3.connect(uri, timeout=_LOCK_TIMEOUT_S, isolation_level=None, uri=True)) as db:
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
            if version not in (0, FORMAT_VERSION):
                raise WorkspaceError(
                    f"{path} has format version {version}; expected {FORMAT_VERSION}",
                    "Open it with the version of dsmoe that wrote it.",
                )
            if version == 0:  # a new file, or one whose creation was interrupted
                db.executescript(_TABLES)
            yield db
    except sqlite3.Error as error:
        raise _translate(path, error) from error


def _translate(path: Path, error: sqlite3.Error) -> Exception:
    """SQLite's error as an error of ours if the user can fix its cause, else unchanged."""
    text = str(error)
    if "full" in text or "disk I/O" in text:
        return PrerequisiteError(
            f"disk full: {path} could not be written ({text})",
            "Free some space and run the same command again.",
        )
    remedies = {
        "not a database": _DAMAGED,
        "malformed": _DAMAGED,
        "unable to open": "Check that you may read and write this file and its folder.",
        "readonly": "Make the workspace writable for your user, for instance by a copy of it that you own.",
        "locked": "Wait until the other process is done, and run the same command again.",
    }
    for word, remedy in remedies.items():
        if word in text:
            return WorkspaceError(f"the versions of the class book in {path} cannot be used: {text}", remedy)
    return error
