"""The journal of a workspace: what was sent, what came back, which step of which round is done.

Every method is one transaction. Writing the same thing twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from dsmoe_core.errors import WorkspaceError
from dsmoe_core.schema import Harvest, ImageRecord
from pipelines.workspace import journal_tables as t
from pipelines.workspace.database import Database
from pipelines.workspace.journal_harvests import as_text, harvest_of, harvest_row, news, remark_row

Role = Literal["pool", "test"]
State = Literal["opening", "open", "closing", "closed"]
Arm = Literal["seed", "ranked", "random"]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class SentTask:
    """One image of a round; ``task_id`` is None until the labelling server is known to have it."""

    key: str
    round: int
    arm: Arm
    rank: int
    uncertainty: float | None
    version: str | None
    task_id: int | None = None


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """A round as the journal holds it; ``result`` is None until it is closed.

    Attributes:
        class_book: version that it was opened with; None of rounds from before this was noted.
    """

    round: int
    state: State
    champion: str | None
    opened_at: datetime
    closed_at: datetime | None
    result: Mapping[str, Any] | None
    class_book: str | None = None


@dataclass(frozen=True, slots=True)
class AliasChange:
    """One turn of an alias, such as a promotion of the champion."""

    model: str
    action: str
    reason: str
    at: datetime


def now() -> str:
    """The present in the journal's notation."""
    return as_text(datetime.now(UTC))


class Journal(Database):
    """Reads and writes the journal behind a SQLAlchemy URL.

    Raises:
        WorkspaceError: the journal is of another version, or is no journal.
        PrerequisiteError: the disk is full.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url, t.metadata)
        version = self.fact("schema_version")
        if version is None:
            self.set_fact("schema_version", t.SCHEMA_VERSION)
        elif version != t.SCHEMA_VERSION:
            raise WorkspaceError(
                f"the journal is of version {version}; expected {t.SCHEMA_VERSION}",
                "Open it with the dsmoe that made it.",
            )

    @classmethod
    def at(cls, path: Path) -> Journal:
        """The SQLite journal in this file."""
        return cls(f"sqlite:///{path}")

    # facts: single values about the workspace
    def fact(self, name: str) -> Any:
        rows = self._rows(sa.select(t.facts.c.value).where(t.facts.c.name == name))
        return rows[0].value if rows else None

    def set_fact(self, name: str, value: Any) -> None:
        self._insert(t.facts, [{"name": name, "value": value}], update=["value"])

    # images
    def reset_ingest(self) -> None:
        """Forget images and imported labels of a making that was killed; a round holds on to them all."""
        if self.rounds():
            return
        with self._connect() as db:
            for table in (t.images, t.harvests, t.remarks):
                db.execute(sa.delete(table))
            db.execute(sa.delete(t.facts).where(t.facts.c.name == "test_set"))

    def add_images(self, images: Iterable[ImageRecord], role: Role, root: Path) -> None:
        """Record images; one that is there already keeps its role, so a test image stays one."""
        rows = [
            {
                "key": p.key,
                "name": p.name,
                "file": p.path.relative_to(root).as_posix(),
                "width": p.width,
                "height": p.height,
                "role": role,
            }
            for p in images
        ]
        self._insert(t.images, rows)

    def images(self, root: Path, role: Role | None = None) -> list[ImageRecord]:
        """Images of a role, or all, by name."""
        query = sa.select(t.images).order_by(t.images.c.name, t.images.c.key)
        if role is not None:
            query = query.where(t.images.c.role == role)
        return [ImageRecord(r.key, r.name, root / r.file, r.width, r.height) for r in self._rows(query)]

    # rounds and the tasks that were sent
    def rounds(self) -> list[RoundRecord]:
        query = sa.select(t.rounds, t.round_books.c.class_book).order_by(t.rounds.c.round)
        query = query.outerjoin(t.round_books, t.round_books.c.round == t.rounds.c.round)
        return [
            RoundRecord(
                r.round,
                r.state,
                r.champion,
                datetime.fromisoformat(r.opened_at),
                datetime.fromisoformat(r.closed_at) if r.closed_at else None,
                r.result,
                r.class_book,
            )
            for r in self._rows(query)
        ]

    def start_round(self, number: int, champion: str | None, class_book: str | None = None) -> None:
        """Begin a round; its words are noted first, for nobody may be killed between and find it without."""
        if class_book is not None:
            words = {"round": number, "class_book": class_book}
            self._insert(t.round_books, [words], update=["class_book"])
        row = {"round": number, "state": "opening", "champion": champion, "opened_at": now()}
        self._insert(t.rounds, [row])

    def set_state(self, number: int, state: State) -> None:
        with self._connect() as db:
            db.execute(sa.update(t.rounds).where(t.rounds.c.round == number).values(state=state))

    def finish_round(self, number: int, result: Mapping[str, Any]) -> None:
        with self._connect() as db:
            db.execute(
                sa.update(t.rounds)
                .where(t.rounds.c.round == number, t.rounds.c.state != "closed")
                .values(state="closed", closed_at=now(), result=dict(result))
            )

    def plan_tasks(self, tasks: Sequence[SentTask]) -> None:
        """Choose images for a round: all of them or none."""
        names = ("key", "round", "arm", "rank", "uncertainty", "version", "task_id")
        self._insert(t.tasks, [{name: getattr(task, name) for name in names} for task in tasks])

    def mark_sent(self, ids: Mapping[str, int]) -> None:
        """Record the labelling server's task ids by image key."""
        with self._connect() as db:
            for key, task_id in ids.items():
                db.execute(sa.update(t.tasks).where(t.tasks.c.key == key).values(task_id=task_id))

    def tasks(self, number: int | None = None) -> list[SentTask]:
        """Tasks of a round, or all, first to label first."""
        query = sa.select(t.tasks).order_by(t.tasks.c.round, t.tasks.c.rank)
        if number is not None:
            query = query.where(t.tasks.c.round == number)
        return [
            SentTask(r.key, r.round, r.arm, r.rank, r.uncertainty, r.version, r.task_id)
            for r in self._rows(query)
        ]

    # what people said
    def record_harvests(
        self, harvests: Sequence[Harvest], *, source: Literal["studio", "import"] = "studio"
    ) -> None:
        """Append states of annotations; a state that is there already, or says nothing new, is left alone."""
        fresh = news(harvests, self._states()) if source == "studio" else harvests
        # First, for nobody may be killed between them and find a doubtful image labelled.
        self._insert(t.remarks, [remark_row(h) for h in fresh if h.doubt or h.note or h.annotators != 1])
        self._insert(t.harvests, [harvest_row(h, source) for h in fresh])

    def harvests(self) -> dict[str, Harvest]:
        """The latest state of each image that came back, by key; imported labels included."""
        return {key: h for key, h in self._latest().items() if h.annotators}

    def _latest(self) -> dict[str, Harvest]:
        """The latest state of each image, those included whose annotations were all taken back."""
        return {h.key: h for h in self._states()}

    def _states(self) -> list[Harvest]:
        """Every state that was seen, oldest first."""
        same = [t.remarks.c[name] == t.harvests.c[name] for name in ("key", "annotation_id", "updated_at")]
        said = [t.remarks.c[name] for name in ("doubt", "note", "annotators", "agreement")]
        query = sa.select(t.harvests, *said).outerjoin(t.remarks, sa.and_(*same))
        return [
            harvest_of(r)
            for r in self._rows(query.order_by(t.harvests.c.updated_at, t.harvests.c.annotation_id))
        ]

    def last_harvest(self) -> datetime | None:
        """The labelling server's time of the newest annotation seen."""
        query = sa.select(sa.func.max(t.harvests.c.updated_at)).where(t.harvests.c.source == "studio")
        value = self._rows(query)[0][0]
        return datetime.fromisoformat(value) if value else None

    # steps
    def finished(self, number: int, step: str) -> dict[str, Any] | None:
        """What a finished step left behind; None where it is still to do."""
        query = sa.select(t.steps).where(t.steps.c.round == number, t.steps.c.step == step)
        rows = [row for row in self._rows(query) if row.finished_at]
        return dict(rows[0].detail or {}) if rows else None

    def begin(self, number: int, step: str) -> None:
        """Note that a step starts, or starts again."""
        row = {"round": number, "step": step, "attempts": 0, "started_at": now()}
        self._insert(t.steps, [row])
        here = (t.steps.c.round == number, t.steps.c.step == step)
        with self._connect() as db:
            db.execute(
                sa.update(t.steps).where(*here).values(attempts=t.steps.c.attempts + 1, started_at=now())
            )

    def finish(self, number: int, step: str, detail: Mapping[str, Any]) -> None:
        here = (t.steps.c.round == number, t.steps.c.step == step)
        with self._connect() as db:
            db.execute(sa.update(t.steps).where(*here).values(finished_at=now(), detail=dict(detail)))

    def steps(self) -> list[tuple[int, str, int, bool]]:
        """(round, step, attempts, finished) in the order they began."""
        query = sa.select(t.steps).order_by(t.steps.c.round, t.steps.c.started_at)
        return [(r.round, r.step, r.attempts, r.finished_at is not None) for r in self._rows(query)]

    # aliases of models
    def set_alias(self, alias: str, model: str, action: str, reason: str) -> None:
        """Point an alias to a model; does nothing where it points there already."""
        history = self.alias_history(alias)
        if history and history[-1].model == model:
            return
        with self._connect() as db:
            row = {"alias": alias, "model": model, "action": action, "reason": reason, "at": now()}
            db.execute(sa.insert(t.aliases).values(row))

    def alias_history(self, alias: str) -> list[AliasChange]:
        """Oldest first; the last one holds now."""
        query = sa.select(t.aliases).where(t.aliases.c.alias == alias).order_by(t.aliases.c.id)
        return [
            AliasChange(r.model, r.action, r.reason, datetime.fromisoformat(r.at)) for r in self._rows(query)
        ]
