"""Journal of a workspace: images, rounds, sent tasks, harvested annotations, finished steps, champion.

Every method is one transaction. Writing the same thing twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from dsmoe_core.data.import_account import ImportAccount
from dsmoe_core.schema import Arm, Harvest, ImageRecord, Outcome
from pipelines.settings.validation import FORMAT_VERSION, check_format_version
from pipelines.workspace import database as t
from pipelines.workspace import harvest_boxes
from pipelines.workspace.database import Database
from pipelines.workspace.harvest_boxes import HarvestBoxes, annotation_from_json, annotation_to_json
from pipelines.workspace.loop_lock import LoopLocks
from pipelines.workspace.model_history import ModelHistory, now, time_text

Role = Literal["pool", "test"]
State = Literal["opening", "open", "closing", "closed"]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_VERSION = "format_version"
_OLD_VERSION, _OLD_VALUES = "schema_version", "facts"  # names of format version 1


@dataclass(frozen=True, slots=True)
class SentTask:
    """One image of a round.

    Attributes:
        acquisition: name of the acquisition function; None in a seed round.
        score: acquisition score, higher = sooner; None in a seed round.
        version: of the pre-annotations, ``MODEL+BOOK``; None where none are shown.
        task_id: in Label Studio; None until the image is known to be there.
    """

    key: str
    round: int
    arm: Arm
    rank: int
    acquisition: str | None = None
    score: float | None = None
    version: str | None = None
    task_id: int | None = None


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """A round in the journal.

    Attributes:
        champion: the model that pre-annotated the images; None in a seed round.
        result: None until the round is closed.
        class_book: published version when the round was opened.
    """

    round: int
    state: State
    champion: str | None
    opened_at: datetime
    closed_at: datetime | None
    result: Mapping[str, Any] | None
    class_book: str | None = None


class Journal(ModelHistory):
    """Reads and writes the journal behind a SQLAlchemy URL.

    Raises:
        WorkspaceError: the file is not a journal, has another format version, or another process holds it.
        PrerequisiteError: the disk is full.
    """

    def __init__(self, url: str) -> None:
        super().__init__(Database(url))
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        """Check the format version and create missing tables; nothing is created in an older journal."""
        with self._db.transaction() as db:
            is_old = sa.inspect(db).has_table(_OLD_VALUES)
        if is_old:
            query = sa.text(f"SELECT value FROM {_OLD_VALUES} WHERE name = '{_OLD_VERSION}'")  # noqa: S608
            versions = [row.value for row in self._db.rows(query)]
            check_format_version(int(versions[0]) if versions else 1, "the journal")
        with self._db.transaction() as db:
            t.metadata.create_all(db)
        version = self.value(_VERSION)
        if version is None:
            self.set_value(_VERSION, FORMAT_VERSION)
        else:
            check_format_version(version, "the journal")

    @classmethod
    def at(cls, path: Path) -> Journal:
        """The SQLite journal in this file."""
        return cls(f"sqlite:///{path}")

    def close(self) -> None:
        """Close all connections."""
        self._db.close()

    # single values of the workspace

    def value(self, name: str) -> Any:
        """A value of the workspace, such as the id of its test set; None if it was never set."""
        rows = self._db.rows(sa.select(t.values_table.c.value).where(t.values_table.c.name == name))
        return rows[0].value if rows else None

    def set_value(self, name: str, value: Any) -> None:
        """Set a value of the workspace."""
        self._db.insert(t.values_table, [{"name": name, "value": value}], update=["value"])

    def loop_locks(self) -> LoopLocks:
        """The lock of the loop that works on the workspace."""
        return LoopLocks(self._db)

    # images

    def reset_ingest(self) -> None:
        """Delete the images and imported labels of an interrupted ingest, unless a round was started."""
        if self.rounds():
            return
        with self._db.transaction() as db:
            for table in (t.images_table, t.arrivals_table, t.harvests_table):
                db.execute(sa.delete(table))
            db.execute(sa.delete(t.values_table).where(t.values_table.c.name == "test_set"))

    def add_images(self, images: Iterable[ImageRecord], role: Role, root: Path) -> None:
        """Record images; an image that is recorded already keeps its role.

        Args:
            root: folder of the workspace.
        """
        rows = [
            {
                "key": image.key,
                "name": image.name,
                "file": image.path.relative_to(root).as_posix(),
                "width": image.width,
                "height": image.height,
                "role": role,
            }
            for image in images
        ]
        self._db.insert(t.images_table, rows)
        self._db.insert(t.arrivals_table, [{"key": row["key"], "at": now()} for row in rows])

    def arrivals(self) -> dict[str, datetime]:
        """When each image was recorded, by key."""
        rows = self._db.rows(sa.select(t.arrivals_table))
        return {row.key: datetime.fromisoformat(row.at) for row in rows}

    def images(self, root: Path, role: Role | None = None) -> list[ImageRecord]:
        """Images of a role, or all, ordered by name."""
        query = sa.select(t.images_table).order_by(t.images_table.c.name, t.images_table.c.key)
        if role is not None:
            query = query.where(t.images_table.c.role == role)
        return [ImageRecord(r.key, r.name, root / r.file, r.width, r.height) for r in self._db.rows(query)]

    # rounds and their tasks

    def rounds(self) -> list[RoundRecord]:
        """All rounds, oldest first."""
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
            for r in self._db.rows(sa.select(t.rounds_table).order_by(t.rounds_table.c.round))
        ]

    def start_round(self, number: int, champion: str | None, class_book: str | None = None) -> None:
        """Record a new round, in state ``opening``."""
        row = {"round": number, "state": "opening", "champion": champion, "class_book": class_book}
        self._db.insert(t.rounds_table, [{**row, "opened_at": now()}])

    def set_state(self, number: int, state: State) -> None:
        """Set the state of a round."""
        with self._db.transaction() as db:
            query = sa.update(t.rounds_table).where(t.rounds_table.c.round == number)
            db.execute(query.values(state=state))

    def finish_round(self, number: int, result: Mapping[str, Any]) -> None:
        """Close a round with its result; a closed round keeps the result it has."""
        with self._db.transaction() as db:
            query = sa.update(t.rounds_table).where(
                t.rounds_table.c.round == number, t.rounds_table.c.state != "closed"
            )
            db.execute(query.values(state="closed", closed_at=now(), result=dict(result)))

    def plan_tasks(self, tasks: Sequence[SentTask]) -> None:
        """Record the selected images of a round, all or none."""
        names = ("key", "round", "arm", "rank", "acquisition", "score", "version", "task_id")
        rows = [{name: getattr(task, name) for name in names} for task in tasks]
        self._db.insert(t.tasks_table, [row | {"arm": str(row["arm"])} for row in rows])

    def mark_sent(self, ids: Mapping[str, int]) -> None:
        """Record the labelling server's task ids by image key."""
        with self._db.transaction() as db:
            for key, task_id in ids.items():
                query = sa.update(t.tasks_table).where(t.tasks_table.c.key == key)
                db.execute(query.values(task_id=task_id))

    def tasks(self, number: int | None = None) -> list[SentTask]:
        """Tasks of a round, or all, by round and rank."""
        query = sa.select(t.tasks_table).order_by(t.tasks_table.c.round, t.tasks_table.c.rank)
        if number is not None:
            query = query.where(t.tasks_table.c.round == number)
        return [
            SentTask(r.key, r.round, Arm(r.arm), r.rank, r.acquisition, r.score, r.version, r.task_id)
            for r in self._db.rows(query)
        ]

    # annotations that came back

    def record_harvests(
        self, harvests: Sequence[Harvest], *, source: Literal["studio", "import"] = "studio"
    ) -> None:
        """Append states of annotations; a state that is recorded already or changes nothing is left out.

        The account of each image, and what became of its boxes, replace those that are recorded.
        """
        accounts = [{"key": h.key, "account": h.account.to_dict()} for h in harvests if h.account is not None]
        self._db.insert(t.harvest_accounts_table, accounts, update=["account"])
        boxes = [harvest_boxes.to_row(h) for h in harvests if source == "studio"]
        self._db.insert(t.harvest_boxes_table, boxes, update=["annotators", "boxes"])
        new = changed_harvests(harvests, self._states()) if source == "studio" else harvests
        self._db.insert(t.harvests_table, [_harvest_row(harvest, source) for harvest in new])

    def harvests(self) -> dict[str, Harvest]:
        """The latest state of each image that has annotations, by key; imported labels included."""
        latest = {harvest.key: harvest for harvest in self._states()}
        return {key: harvest for key, harvest in latest.items() if harvest.annotators}

    def harvest_accounts(self) -> dict[str, ImportAccount]:
        """The account of the latest annotations of each image, by key; imported labels have none."""
        rows = self._db.rows(sa.select(t.harvest_accounts_table))
        return {row.key: ImportAccount.from_dict(row.account) for row in rows}

    def harvest_boxes(self) -> dict[str, HarvestBoxes]:
        """What became of each box in the latest annotations of each image, by key."""
        rows = self._db.rows(sa.select(t.harvest_boxes_table))
        return {row.key: harvest_boxes.from_row(row.annotators, row.boxes) for row in rows}

    def _states(self) -> list[Harvest]:
        """All recorded states, oldest first."""
        table = t.harvests_table
        query = sa.select(table).order_by(table.c.updated_at, table.c.annotation_id)
        return [_harvest_of(row) for row in self._db.rows(query)]

    def last_harvest(self) -> datetime | None:
        """Time of the newest recorded annotation, by the labelling server's clock."""
        table = t.harvests_table
        query = sa.select(sa.func.max(table.c.updated_at)).where(table.c.source == "studio")
        value = self._db.rows(query)[0][0]
        return datetime.fromisoformat(value) if value else None

    # steps of a round

    def finished(self, number: int, step: str) -> dict[str, Any] | None:
        """The result of a finished step; None if the step is not finished."""
        table = t.steps_table
        query = sa.select(table).where(table.c.round == number, table.c.step == step)
        rows = [row for row in self._db.rows(query) if row.finished_at]
        return dict(rows[0].detail or {}) if rows else None

    def begin(self, number: int, step: str) -> None:
        """Record that a step starts, or starts again."""
        table = t.steps_table
        row = {"round": number, "step": step, "attempts": 0, "started_at": now()}
        self._db.insert(table, [row])
        with self._db.transaction() as db:
            query = sa.update(table).where(table.c.round == number, table.c.step == step)
            db.execute(query.values(attempts=table.c.attempts + 1, started_at=now()))

    def finish(self, number: int, step: str, detail: Mapping[str, Any]) -> None:
        """Record that a step is finished, with its result."""
        table = t.steps_table
        with self._db.transaction() as db:
            query = sa.update(table).where(table.c.round == number, table.c.step == step)
            db.execute(query.values(finished_at=now(), detail=dict(detail)))

    def steps(self) -> list[tuple[int, str, int, bool]]:
        """(round, step, attempts, finished), in the order in which the steps started."""
        query = sa.select(t.steps_table).order_by(t.steps_table.c.round, t.steps_table.c.started_at)
        return [(r.round, r.step, r.attempts, r.finished_at is not None) for r in self._db.rows(query)]


def changed_harvests(harvests: Sequence[Harvest], states: Sequence[Harvest]) -> list[Harvest]:
    """The harvests that differ from the latest known state of their image, oldest first.

    What the labelling server returns is in effect, whatever its clock says. If the clock was set back, or an
    earlier state is in effect again after a backup was restored, the harvest is dated just after the state
    that it replaces.

    Args:
        harvests: as the labelling server returns them.
        states: all recorded states, oldest first.
    """
    latest = {harvest.key: harvest for harvest in states}
    changed = []
    for harvest in sorted(harvests, key=lambda h: (h.updated_at, h.annotation_id)):
        known = latest.get(harvest.key)
        if not _changes(harvest, known):
            continue
        moment = harvest.updated_at
        if known is not None and moment <= known.updated_at:
            moment = known.updated_at + timedelta(microseconds=1)
        latest[harvest.key] = replace(harvest, updated_at=moment)
        changed.append(latest[harvest.key])
    return changed


def _changes(harvest: Harvest, known: Harvest | None) -> bool:
    """Whether a harvest differs from the known state in more than its date."""
    if known is None:
        return harvest.annotators > 0
    return replace(harvest, updated_at=known.updated_at) != known


def _harvest_row(harvest: Harvest, source: str) -> dict[str, Any]:
    plain = ("key", "annotation_id", "skipped", "version", "seconds")
    feedback = ("doubt", "note", "annotators", "agreement")
    return {name: getattr(harvest, name) for name in (*plain, *feedback)} | {
        "updated_at": time_text(harvest.updated_at),
        "source": source,
        "boxes": [annotation_to_json(a) for a in harvest.annotations],
        "outcomes": {str(outcome): count for outcome, count in harvest.outcomes.items()},
    }


def _harvest_of(row: sa.Row[Any]) -> Harvest:
    return Harvest(
        key=row.key,
        annotations=tuple(map(annotation_from_json, row.boxes)),
        annotation_id=row.annotation_id,
        updated_at=datetime.fromisoformat(row.updated_at),
        skipped=row.skipped,
        outcomes={Outcome(name): count for name, count in row.outcomes.items()},
        version=row.version,
        seconds=row.seconds,
        doubt=row.doubt,
        note=row.note,
        annotators=row.annotators,
        agreement=row.agreement,
    )
