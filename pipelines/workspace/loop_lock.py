"""Lock of the loop of a workspace: at most one ``dsmoe watch`` works on it, on whichever host.

The lock is a row of the journal with its owner and a heartbeat. It is taken, renewed and released by
statements that change the row only if it is as it was read, so of two processes only one gets it. Single
steps of a round are protected by ``Workspace.locked`` as well.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from dsmoe_core.errors import WorkspaceError
from pipelines.workspace import database as t
from pipelines.workspace.database import Database
from pipelines.workspace.model_history import time_text

STALE_INTERVALS = 3
"""Heartbeat intervals without a heartbeat after which a lock is stale."""
_NAME = "watch"


class LoopLockLostError(WorkspaceError):
    """Another process has taken the loop lock of this one."""


@dataclass(frozen=True, slots=True)
class LoopOwner:
    """The process that holds a loop lock.

    Attributes:
        token: random, of this owner alone.
        process_start: start of the process, as the system counts it; "" where it cannot be read.
        place: of the workspace, see ``place_of``.
        since, heartbeat: when the lock was taken and last renewed.
        interval_s: seconds between two heartbeats.
    """

    token: str
    host: str
    pid: int
    process_start: str
    place: str
    since: datetime
    heartbeat: datetime
    interval_s: float

    @classmethod
    def this_process(cls, workspace: Path, interval_s: float) -> LoopOwner:
        """This process as an owner, from now on."""
        now, pid = datetime.now(UTC), os.getpid()
        return cls(
            token=secrets.token_hex(8),
            host=socket.gethostname(),
            pid=pid,
            process_start=process_start(pid),
            place=place_of(workspace),
            since=now,
            heartbeat=now,
            interval_s=interval_s,
        )

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since.astimezone():%Y-%m-%d %H:%M:%S}"


def stale_reason(held: LoopOwner, me: LoopOwner) -> str | None:
    """Why a lock may be taken over; None for a live lock.

    Args:
        held: the owner in the journal.
        me: the process that wants it, now.
    """
    if held.place != me.place:
        return "it was copied with the workspace"
    age = abs((me.heartbeat - held.heartbeat).total_seconds())  # a clock may have been set back
    if age > STALE_INTERVALS * held.interval_s:
        return f"its last heartbeat was {age:.0f} s ago, expected every {held.interval_s:g} s"
    if held.host == me.host and process_start(held.pid) != held.process_start:
        return "its process has ended"
    return None


def place_of(workspace: Path) -> str:
    """The inode of the journal's file: the same after a move and in a mount, another one in a copy."""
    file = workspace / "journal.sqlite"
    return str(file.stat().st_ino) if file.exists() else str(workspace.resolve())


def process_start(pid: int) -> str:
    """Start of a process in clock ticks since the boot; "ended" if there is no such process.

    "" where the system does not say more than that it runs.
    """
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return "ended"
    except OSError:
        return ""
    else:
        return "ended" if state in "ZX" else fields[18]
    with suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return "ended"
    return ""


class LoopLocks:
    """Reads and changes the lock in the journal.

    Args:
        db: database of the journal.
    """

    def __init__(self, db: Database) -> None:
        self._db = db

    def owner(self) -> LoopOwner | None:
        """The owner in the journal, live or not; None if the lock is free."""
        rows = self._db.rows(sa.select(t.loop_locks_table).where(t.loop_locks_table.c.name == _NAME))
        if not rows:
            return None
        values = {name: value for name, value in rows[0]._mapping.items() if name != "name"}
        times = {name: datetime.fromisoformat(values[name]) for name in ("since", "heartbeat")}
        return LoopOwner(**values | times)

    def acquire(self, me: LoopOwner) -> tuple[LoopOwner, str] | None:
        """Take the lock.

        Returns:
            The owner of the stale lock that was taken over, and why; None if the lock was free.

        Raises:
            WorkspaceError: another live process holds it.
        """
        held = self.owner()
        if held is None:
            if self._insert(me):
                return None
            held = self.owner()  # another process was faster
        reason = None if held is None else stale_reason(held, me)
        if held is None or reason is None or not self._swap(held, me):
            raise WorkspaceError(
                f"the workspace is watched already, by {held or 'another process'}",
                "Stop it with Ctrl-C or `kill`, or leave the work to it.",
            )
        return held, reason

    def renew(self, me: LoopOwner) -> LoopOwner | None:
        """Write a heartbeat.

        Returns:
            The owner with the new heartbeat; None if another process has taken the lock.
        """
        renewed = replace(me, heartbeat=datetime.now(UTC))
        return renewed if self._swap(me, renewed) else None

    def release(self, me: LoopOwner) -> None:
        """Free the lock, unless another process has taken it."""
        table = t.loop_locks_table
        with self._db.transaction() as db:
            db.execute(sa.delete(table).where(table.c.name == _NAME, table.c.token == me.token))

    def _insert(self, me: LoopOwner) -> bool:
        self._db.insert(t.loop_locks_table, [_row(me)])
        owner = self.owner()
        return owner is not None and owner.token == me.token

    def _swap(self, old: LoopOwner, new: LoopOwner) -> bool:
        """Write the new owner if the row still has the old one; returns whether it had."""
        table, row = t.loop_locks_table, _row(old)
        same = (table.c.name == _NAME, table.c.token == row["token"], table.c.heartbeat == row["heartbeat"])
        with self._db.transaction() as db:
            done = db.execute(sa.update(table).where(*same).values(_row(new)))
            return done.rowcount == 1


def _row(owner: LoopOwner) -> dict[str, Any]:
    times = {name: time_text(getattr(owner, name)) for name in ("since", "heartbeat")}
    return asdict(owner) | times | {"name": _NAME}


class Heartbeat:
    """Renews a loop lock in a thread, so that a long training does not make it stale.

    Args:
        locks: of the journal.
        owner: this process, which holds the lock.
    """

    def __init__(self, locks: LoopLocks, owner: LoopOwner) -> None:
        self._locks, self._owner = locks, owner
        self._stop = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._run, name="loop-heartbeat", daemon=True)

    def check(self) -> None:
        """Check that this process holds the lock still.

        Raises:
            LoopLockLostError: another process has taken it.
        """
        if self._lost.is_set():
            raise LoopLockLostError(
                f"the workspace is watched by another process now: {self._locks.owner() or 'it has ended'}",
                "Leave the work to it; this one stops.",
            )

    def _run(self) -> None:
        while not self._stop.wait(self._owner.interval_s):
            # A heartbeat that fails, as the disk is full or the journal is locked, is tried again; what comes
            # of a longer failure the next process decides.
            with suppress(Exception):
                renewed = self._locks.renew(self._owner)
                if renewed is None:
                    self._lost.set()
                    return
                self._owner = renewed

    def start(self) -> None:
        """Begin to write heartbeats."""
        self._thread.start()

    def stop(self) -> None:
        """Write no more heartbeats, and free the lock."""
        self._stop.set()
        self._thread.join()
        self._locks.release(self._owner)


@contextmanager
def loop_lock(
    locks: LoopLocks, workspace: Path, interval_s: float
) -> Iterator[tuple[Heartbeat, tuple[LoopOwner, str] | None]]:
    """Hold the loop lock for the length of the block.

    Args:
        interval_s: seconds between two heartbeats.

    Yields:
        The heartbeat, and the owner of a stale lock that was taken over, with the reason.

    Raises:
        WorkspaceError: another live process holds it.
    """
    me = LoopOwner.this_process(workspace, interval_s)
    replaced = locks.acquire(me)
    heartbeat = Heartbeat(locks, me)
    heartbeat.start()
    try:
        yield heartbeat, replaced
    finally:
        heartbeat.stop()
