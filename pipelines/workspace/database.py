"""The journal's database: its tables, and connections to SQLite or Postgres.

The tables are SQLAlchemy Core, so that both databases hold the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy import JSON, Boolean, Column, Float, Integer, MetaData, String, Table, Text
from sqlalchemy.dialects import postgresql, sqlite

from dsmoe_core.errors import DsmoeError, PrerequisiteError, WorkspaceError

metadata = MetaData()

values_table = Table(
    "workspace_values",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", JSON, nullable=False),
)

images_table = Table(
    "images",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("name", Text, nullable=False),
    Column("file", Text, nullable=False, comment="relative to the workspace"),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("role", String(8), nullable=False, index=True, comment="pool or test; test is never sent out"),
)

# Its own table: an image that was recorded before it existed arrived before all others.
arrivals_table = Table(
    "arrivals",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("at", String(40), nullable=False, comment="when the image was recorded"),
)

rounds_table = Table(
    "rounds",
    metadata,
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("state", String(8), nullable=False, comment="opening, open, closing, closed"),
    Column("champion", String(64), comment="the model that pre-annotated the images"),
    Column("class_book", String(64), comment="published version when the round was opened"),
    Column("opened_at", String(40), nullable=False),
    Column("closed_at", String(40)),
    Column("result", JSON, comment="written once, when the round closes"),
)

# The primary key is the image alone: the database itself refuses to send an image twice.
tasks_table = Table(
    "tasks",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("round", Integer, nullable=False, index=True),
    Column("arm", String(8), nullable=False, comment="seed, ranked or random"),
    Column("rank", Integer, nullable=False),
    Column("acquisition", String(32), comment="acquisition function; null in a seed round"),
    Column("score", Float, comment="acquisition score, higher = sooner; null in a seed round"),
    Column("version", String(160), comment="of the pre-annotations, MODEL+BOOK"),
    Column("task_id", Integer, comment="in Label Studio; null until the image is known to be there"),
)

# Append only: every state of every annotation; the latest one of an image counts.
harvests_table = Table(
    "harvests",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("annotation_id", Integer, primary_key=True, autoincrement=False),
    Column("updated_at", String(40), primary_key=True, comment="UTC, ISO 8601, microseconds: sorts as text"),
    Column("source", String(8), nullable=False, comment="studio, or import for labels given to init"),
    Column("skipped", Boolean, nullable=False),
    Column("boxes", JSON, nullable=False, comment="[[x1, y1, x2, y2, label], ...] in pixels"),
    Column("outcomes", JSON, nullable=False),
    Column("version", String(160)),
    Column("seconds", Float),
    Column("doubt", String(24), comment="unsure, needs an expert: does not count as labelled"),
    Column("note", Text, nullable=False, comment="for the domain expert"),
    Column("annotators", Integer, nullable=False, comment="0: all annotations were withdrawn"),
    Column("agreement", Float),
)

harvest_accounts_table = Table(
    "harvest_accounts",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("account", JSON, nullable=False, comment="of the latest annotations, see import_account"),
)

# What became of each box, and who decided it: ids of the labelling server only.
harvest_boxes_table = Table(
    "harvest_boxes",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("annotators", JSON, nullable=False, comment="user ids of the labelling server, no names"),
    Column("boxes", JSON, nullable=False, comment="of the latest annotations, see harvest_boxes.py"),
)

steps_table = Table(
    "steps",
    metadata,
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("step", String(24), primary_key=True),
    Column("attempts", Integer, nullable=False),
    Column("started_at", String(40), nullable=False),
    Column("finished_at", String(40)),
    Column("detail", JSON),
)

# One row while a loop runs; see pipelines.workspace.loop_lock.
loop_locks_table = Table(
    "loop_locks",
    metadata,
    Column("name", String(24), primary_key=True),
    Column("token", String(32), nullable=False, comment="random, of one owner"),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("process_start", String(40), nullable=False, comment="tells a process from a later one of its id"),
    Column("place", String(64), nullable=False, comment="tells a workspace from a copy of it"),
    Column("since", String(40), nullable=False),
    Column("heartbeat", String(40), nullable=False),
    Column("interval_s", Float, nullable=False, comment="between two heartbeats"),
)

# Append only: the latest row of an alias is what it points to, the earlier rows are its history.
aliases_table = Table(
    "aliases",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("alias", String(24), nullable=False, index=True),
    Column("model", String(64), nullable=False),
    Column("action", String(12), nullable=False, comment="promote or rollback"),
    Column("reason", Text, nullable=False),
    Column("at", String(40), nullable=False),
)

# Append only: every decision on a model, by the promotion gate or by a person.
model_events_table = Table(
    "model_events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("model", String(64), nullable=False, index=True),
    Column("action", String(12), nullable=False, comment="promote, rollback, hold, shadow or refuse"),
    Column("reason", Text, nullable=False),
    Column("author", String(64), comment="null: the promotion gate"),
    Column("class_book", String(64), comment="published version when the model became champion"),
    Column("at", String(40), nullable=False),
)


class Database:
    """Short transactions on one database, with errors that say what to do.

    Raises:
        WorkspaceError: the file is not a database, or another process holds it.
        PrerequisiteError: the disk is full.
    """

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url)
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _set_sqlite_pragmas)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """One transaction: committed at the end, rolled back on an exception."""
        try:
            with self._engine.begin() as db:
                yield db
        except sa.exc.DBAPIError as error:
            raise _explain(error) from error

    def insert(
        self, table: sa.Table, rows: Sequence[Mapping[str, Any]], *, update: Sequence[str] = ()
    ) -> None:
        """Insert rows; where the primary key exists, change only the columns in ``update``."""
        if not rows:
            return
        build = postgresql.insert if self._engine.dialect.name == "postgresql" else sqlite.insert
        statement = build(table)
        keys = [column.name for column in table.primary_key]
        if update:
            changes = {name: statement.excluded[name] for name in update}
            statement = statement.on_conflict_do_update(index_elements=keys, set_=changes)
        else:
            statement = statement.on_conflict_do_nothing(index_elements=keys)
        with self.transaction() as db:
            db.execute(statement, [dict(row) for row in rows])

    def rows(self, query: sa.Executable) -> list[sa.Row[Any]]:
        """All rows of a query."""
        with self.transaction() as db:
            return list(db.execute(query).all())


def _set_sqlite_pragmas(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA busy_timeout=10000")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _explain(error: sa.exc.DBAPIError) -> DsmoeError | sa.exc.DBAPIError:
    """An error of the database as one of ours where the user can act on it; else the error itself."""
    text = str(error.orig)
    if "full" in text or "disk I/O error" in text:
        return PrerequisiteError(
            f"disk full: the journal could not be written ({text})",
            "Free some space and run the same command again; it continues where it stopped.",
        )
    if "readonly" in text or "read-only" in text:
        return WorkspaceError(
            f"the journal cannot be written: {text}",
            "Make the workspace writable for your user, for instance by a copy of it that you own.",
        )
    if "locked" in text:
        return WorkspaceError(
            f"the journal cannot be used: {text}, because another process writes to it",
            "Wait until that process is done and run the same command again; it continues where it stopped.",
        )
    if isinstance(error, sa.exc.OperationalError | sa.exc.DatabaseError) and (
        "not a database" in text or "malformed" in text or "unable to open" in text
    ):
        return WorkspaceError(
            f"the journal cannot be used: {text}",
            "Check that journal.sqlite is undamaged, and that you may write to it and to its folder.",
        )
    return error
