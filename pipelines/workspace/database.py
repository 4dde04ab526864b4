"""A database behind a SQLAlchemy URL, SQLite or Postgres: short transactions, complaints to act on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from dsmoe_core.errors import DsmoeError, PrerequisiteError, WorkspaceError


class Database:
    """Connections to one database, whose tables are made if they are missing.

    Raises:
        WorkspaceError: it is no database, or another process holds it.
        PrerequisiteError: the disk is full.
    """

    def __init__(self, url: str, tables: sa.MetaData) -> None:
        self._engine = sa.create_engine(url)
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _sqlite_pragmas)
        with self._connect() as db:
            tables.create_all(db)

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _connect(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as db:
                yield db
        except sa.exc.DBAPIError as error:
            raise _explain(error) from error

    def _insert(
        self, table: sa.Table, rows: Sequence[Mapping[str, Any]], *, update: Sequence[str] = ()
    ) -> None:
        """Insert rows; where the primary key is there already, change only the columns in ``update``."""
        if not rows:
            return
        build = postgresql.insert if self._engine.dialect.name == "postgresql" else sqlite.insert
        statement = build(table)
        keys = [column.name for column in table.primary_key]
        if update:
            changed = {name: statement.excluded[name] for name in update}
            statement = statement.on_conflict_do_update(index_elements=keys, set_=changed)
        else:
            statement = statement.on_conflict_do_nothing(index_elements=keys)
        with self._connect() as db:
            db.execute(statement, [dict(row) for row in rows])

    def _rows(self, query: sa.Executable) -> list[sa.Row[Any]]:
        with self._connect() as db:
            return list(db.execute(query).all())


def _sqlite_pragmas(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA busy_timeout=10000")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _explain(error: sa.exc.DBAPIError) -> DsmoeError | sa.exc.DBAPIError:
    """The database's complaint as a line a user can act on, where it is not our bug."""
    text = str(error.orig)
    if "full" in text or "disk I/O error" in text:
        return PrerequisiteError(
            f"disk full: the journal could not be written ({text})",
            "Free some space and run the same command again; it goes on where it was.",
        )
    if "locked" in text:
        return WorkspaceError(
            f"the journal cannot be used: {text}, for another process writes to it",
            "Wait until that is done and run the same command again; it goes on where it was.",
        )
    if isinstance(error, sa.exc.OperationalError | sa.exc.DatabaseError) and (
        "not a database" in text or "malformed" in text or "unable to open" in text
    ):
        return WorkspaceError(f"the journal cannot be used: {text}", "Check the file journal.sqlite.")
    return error
