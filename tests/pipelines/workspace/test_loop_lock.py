"""The loop lock: one owner, stale locks are taken over, a copied workspace is free."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from dsmoe_core.errors import WorkspaceError
from pipelines.workspace.journal import Journal
from pipelines.workspace.loop_lock import (
    Heartbeat,
    LoopLockLostError,
    LoopOwner,
    loop_lock,
    process_start,
    stale_reason,
)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal.at(tmp_path / "journal.sqlite")
    yield opened
    opened.close()


def owner(folder: Path, interval_s: float = 60.0) -> LoopOwner:
    return LoopOwner.this_process(folder, interval_s)


def test_lock_is_held_for_the_block_and_refused_meanwhile(tmp_path: Path, journal: Journal) -> None:
    locks = journal.loop_locks()
    with loop_lock(locks, tmp_path, 60.0) as (_, replaced):
        assert replaced is None
        held = locks.owner()
        assert held is not None
        assert held.since == held.heartbeat
        with pytest.raises(WorkspaceError, match=str(held.pid)), loop_lock(locks, tmp_path, 60.0):
            pass
        assert locks.owner() == held
    assert locks.owner() is None


def test_lock_of_an_ended_process_is_taken_over(tmp_path: Path, journal: Journal) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    locks = journal.loop_locks()
    dead = replace(owner(tmp_path), pid=ended.pid)
    assert locks.acquire(dead) is None
    taken = locks.acquire(owner(tmp_path))
    assert taken is not None
    assert taken[0] == dead


def test_process_start_tells_a_later_process_of_the_same_id(tmp_path: Path) -> None:
    me = owner(tmp_path)
    assert process_start(me.pid) == me.process_start != "ended"
    assert stale_reason(replace(me, process_start="1"), me) is not None
    assert stale_reason(me, me) is None


@pytest.mark.parametrize(("intervals", "stale"), [(2.9, False), (3.1, True), (-2.9, False), (-3.1, True)])
def test_lock_without_heartbeats_is_stale(tmp_path: Path, intervals: float, stale: bool) -> None:
    me = owner(tmp_path, 10.0)
    held = replace(me, host="elsewhere", heartbeat=me.heartbeat - timedelta(seconds=10 * intervals))
    assert (stale_reason(held, me) is not None) is stale


def test_process_of_another_host_is_not_looked_up_here(tmp_path: Path) -> None:
    me = owner(tmp_path)
    assert stale_reason(replace(me, host="elsewhere", process_start="1"), me) is None


def test_copied_workspace_is_free_and_a_moved_one_is_not(tmp_path: Path) -> None:
    first, copied, moved = (tmp_path / name for name in ("first", "copied", "moved"))
    first.mkdir()
    journal = Journal.at(first / "journal.sqlite")
    assert journal.loop_locks().acquire(owner(first)) is None
    journal.close()
    shutil.copytree(first, copied)
    first.rename(moved)
    for folder, free in ((copied, True), (moved, False)):
        opened = Journal.at(folder / "journal.sqlite")
        if free:
            assert opened.loop_locks().acquire(owner(folder)) is not None
        else:
            with pytest.raises(WorkspaceError):
                opened.loop_locks().acquire(owner(folder))
        opened.close()


def test_of_many_that_want_a_stale_lock_one_gets_it(tmp_path: Path, journal: Journal) -> None:
    me = owner(tmp_path)
    locks = journal.loop_locks()
    old = me.heartbeat - timedelta(hours=1)
    locks.acquire(replace(me, token="old", heartbeat=old, since=old))
    gate, won = threading.Barrier(6), []

    def attempt(number: int) -> None:
        contender = replace(owner(tmp_path), token=f"contender {number}")
        gate.wait()
        try:
            locks.acquire(contender)
        except WorkspaceError:
            return
        won.append(contender.token)

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held = locks.owner()
    assert held is not None
    assert won == [held.token]


def test_heartbeats_are_written_and_a_lost_lock_is_noticed(tmp_path: Path, journal: Journal) -> None:
    locks = journal.loop_locks()
    me = owner(tmp_path, 0.02)
    locks.acquire(me)
    heartbeat = Heartbeat(locks, me)
    heartbeat.start()

    def wait_for(condition: object) -> None:
        deadline = time.monotonic() + 20
        while not condition():  # type: ignore[operator]
            assert time.monotonic() < deadline
            time.sleep(0.01)

    wait_for(lambda: (locks.owner() or me).heartbeat > me.heartbeat)
    heartbeat.check()
    thief = replace(me, token="thief")
    while not locks._swap(locks.owner() or me, thief):
        pass

    def lost() -> bool:
        try:
            heartbeat.check()
        except LoopLockLostError:
            return True
        return False

    wait_for(lost)
    heartbeat.stop()
    held = locks.owner()
    assert held is not None
    assert held.token == "thief"  # the loser does not free the lock of another
