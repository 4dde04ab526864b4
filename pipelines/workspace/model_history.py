"""Aliases of models, such as the champion, and the history of decisions on models; a part of the journal."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa

from pipelines.workspace import database as t
from pipelines.workspace.database import Database


@dataclass(frozen=True, slots=True)
class AliasChange:
    """One change of an alias, such as a promotion of the champion."""

    model: str
    action: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class ModelEvent:
    """A decision on a model.

    Attributes:
        author: None for the promotion gate.
        class_book: published version when the model became champion; None for other actions.
    """

    model: str
    action: str
    reason: str
    author: str | None
    class_book: str | None
    at: datetime


def time_text(moment: datetime) -> str:
    """UTC with microseconds, so that text order is time order."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def now() -> str:
    """The current time as the journal writes it."""
    return time_text(datetime.now(UTC))


class ModelHistory:
    """Reads and writes aliases and decisions.

    Args:
        database: the journal's.
    """

    def __init__(self, database: Database) -> None:
        self._db = database

    def set_alias(
        self,
        alias: str,
        model: str,
        action: str,
        reason: str,
        *,
        author: str | None = None,
        class_book: str | None = None,
    ) -> None:
        """Point an alias to a model and record the decision; does nothing if it points there already."""
        history = self.alias_history(alias)
        if history and history[-1].model == model:
            return
        row = {"model": model, "action": action, "reason": reason, "at": now()}
        with self._db.transaction() as db:
            db.execute(sa.insert(t.aliases_table).values({"alias": alias, **row}))
            event = row | {"author": author, "class_book": class_book}
            db.execute(sa.insert(t.model_events_table).values(event))

    def alias_history(self, alias: str) -> list[AliasChange]:
        """All changes of an alias, oldest first; the last one is in effect."""
        table = t.aliases_table
        query = sa.select(table).where(table.c.alias == alias).order_by(table.c.id)
        return [
            AliasChange(r.model, r.action, r.reason, datetime.fromisoformat(r.at))
            for r in self._db.rows(query)
        ]

    def record_event(self, model: str, action: str, reason: str, author: str | None = None) -> None:
        """Record a decision on a model; does nothing if its last one has the same action and reason."""
        last = next((event for event in reversed(self.model_events(model))), None)
        if last is not None and (last.action, last.reason) == (action, reason):
            return
        row = {"model": model, "action": action, "reason": reason, "author": author, "at": now()}
        with self._db.transaction() as db:
            db.execute(sa.insert(t.model_events_table).values(row))

    def model_events(self, model: str | None = None) -> list[ModelEvent]:
        """Decisions on a model, or all, oldest first."""
        query = sa.select(t.model_events_table).order_by(t.model_events_table.c.id)
        if model is not None:
            query = query.where(t.model_events_table.c.model == model)
        return [
            ModelEvent(r.model, r.action, r.reason, r.author, r.class_book, datetime.fromisoformat(r.at))
            for r in self._db.rows(query)
        ]
