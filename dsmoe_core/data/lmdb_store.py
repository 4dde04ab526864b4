"""Bytes kept on disk in LMDB under keys of 32 bytes, for what can be made again: squares, features.

What is kept lies in a folder of its own for all settings that decide it, so a changed setting never reads
what is old. Whoever opens a store that no one else has open looks it through first, without LMDB: that trusts
its file, and a torn one can take the whole process down (SIGBUS). A torn store is begun anew, and each value
carries a checksum. Nothing is lost with a store but time.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import shutil
import threading
import weakref
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import lmdb
from lmdb.verify import VerifyError, verify

from dsmoe_core.errors import DISK_FULL_ERRNOS, PrerequisiteError

COMMIT_BYTES = 32 << 20
"""So much is kept in memory before it is written, and lost by a kill."""
_SETTINGS = b"settings"
_log = logging.getLogger(__name__)


class LmdbStore:
    """Values by key. Many processes may use one at a time, and many threads.

    Args:
        folder: made if missing; there is one store in it for all settings. Those whose ``made_by`` is another
            are removed, unless someone has them open.
        made_by: short, in letters and digits: of what made the values.
        settings: all that decides the values.
        max_bytes: a store of this size takes no more.

    Raises:
        PrerequisiteError: the disk is full, or the folder cannot be written.
    """

    def __init__(self, folder: Path, made_by: str, settings: bytes, max_bytes: int) -> None:
        self._file = _File.shared(folder, made_by, settings, max_bytes)
        self._waiting: dict[bytes, bytes] = {}
        self._waiting_bytes = 0

    def get(self, key: bytes) -> bytes | None:
        """What is there under this key; None where nothing is, or where its checksum is wrong."""
        with self._file.lock:
            return self._waiting.get(key) or self._file.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        """Keep a value; it is written with the next :meth:`flush`, or when many are waiting.

        Raises:
            PrerequisiteError: the disk is full.
        """
        with self._file.lock:
            self._waiting[key] = value
            self._waiting_bytes += len(value)
            if self._waiting_bytes >= COMMIT_BYTES:
                self.flush()

    def flush(self) -> None:
        """Write what was put since the last time.

        Raises:
            PrerequisiteError: the disk is full.
        """
        with self._file.lock:
            waiting, self._waiting, self._waiting_bytes = self._waiting, {}, 0
            if waiting:
                self._file.put(waiting)


class _File:
    """One LMDB environment, opened once in a process however many use it, closed with the last of them."""

    _open: ClassVar[weakref.WeakValueDictionary[Path, _File]] = weakref.WeakValueDictionary()

    def __init__(self, home: Path, settings: bytes, max_bytes: int) -> None:
        self.lock = threading.RLock()
        self._home = home
        self._takes_more = True
        with _clear_errors(home):
            home.mkdir(parents=True, exist_ok=True)
            lock = os.open(home / "in_use", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            weakref.finalize(self, os.close, lock)
            if _locked(lock, fcntl.LOCK_EX) and not _is_whole(home, settings):
                _log.warning("the cache %s was torn and is begun anew", home)
                for name in ("data.mdb", "lock.mdb"):
                    (home / name).unlink(missing_ok=True)
            fcntl.flock(lock, fcntl.LOCK_SH)  # waits for whoever looks it through
            self._lmdb = lmdb.open(str(home), map_size=max_bytes, readahead=False)
            weakref.finalize(self, self._lmdb.close)
            self._lmdb.reader_check()  # frees the places of readers that were killed
        if self.get(_SETTINGS) is None:
            self.put({_SETTINGS: settings})

    @classmethod
    def shared(cls, folder: Path, made_by: str, settings: bytes, max_bytes: int) -> _File:
        """The file of these settings; those that were made by something else are removed."""
        folder = folder.expanduser().resolve()
        home = folder / f"{made_by}-{hashlib.sha256(settings).hexdigest()[:16]}"
        file = cls._open.get(home)
        if file is None:
            _remove_others(folder, made_by)
            file = cls._open[home] = cls(home, settings, max_bytes)
        return file

    def get(self, key: bytes) -> bytes | None:
        """What is there under this key; None where nothing is, or where its checksum is wrong."""
        try:
            with self._lmdb.begin() as view:
                record = view.get(key)
        except lmdb.MapResizedError:  # another process was allowed more than we were
            self._lmdb.set_mapsize(0)
            return self.get(key)
        except lmdb.Error as error:
            _log.warning("the cache %s cannot be read: %s", self._home, error)
            self._takes_more = False  # the next one to open it begins it anew
            return None
        if record is None or record[:4] != _checksum(key, record[4:]):
            return None
        return bytes(record[4:])

    def put(self, values: dict[bytes, bytes]) -> None:
        """Keep all of them or, where there is no room within the bound, none.

        Raises:
            PrerequisiteError: the disk is full.
        """
        if not self._takes_more:
            return
        try:
            with _clear_errors(self._home), self._lmdb.begin(write=True) as change:
                for key, value in values.items():
                    change.put(key, _checksum(key, value) + value)
        except lmdb.MapResizedError:
            self._lmdb.set_mapsize(0)
            self.put(values)
        except lmdb.MapFullError:
            self._takes_more = False
            size = self._lmdb.info()["map_size"]
            _log.warning("the cache %s has reached its bound of %d bytes", self._home, size)


def _checksum(key: bytes, value: bytes) -> bytes:
    return zlib.crc32(value, zlib.crc32(key)).to_bytes(4, "big")


def _locked(lock: int, kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_whole(home: Path, settings: bytes) -> bool:
    """Whether LMDB can open this without harm and finds our settings in it; a new one is whole."""
    try:
        if verify(str(home)):  # type: ignore[no-untyped-call]
            return False
    except FileNotFoundError:
        return True
    except VerifyError:
        return False
    with lmdb.open(str(home), readonly=True, lock=False) as found, found.begin() as view:
        record = view.get(_SETTINGS)
    return record is None or record == _checksum(_SETTINGS, settings) + settings


def _remove_others(folder: Path, made_by: str) -> None:
    """Remove what something else has made, unless someone has it open."""
    for home in folder.glob("*-*"):
        if not home.name.startswith(made_by) and (home / "in_use").is_file():
            lock = os.open(home / "in_use", os.O_RDWR | os.O_CLOEXEC)
            try:
                if _locked(lock, fcntl.LOCK_EX):
                    shutil.rmtree(home, ignore_errors=True)
            finally:
                os.close(lock)


@contextmanager
def _clear_errors(home: Path) -> Iterator[None]:
    """Tell a full disk, and a folder that cannot be written, as the user's to mend."""
    try:
        yield
    except (lmdb.MapFullError, lmdb.MapResizedError):
        raise
    except (OSError, lmdb.Error) as error:
        if isinstance(error, lmdb.Error):
            code, reason = error.code, error.reason
        else:
            code, reason = error.errno or 0, error.strerror or ""
        if code in (*DISK_FULL_ERRNOS, errno.EIO):  # EIO: what LMDB makes of a short write
            raise PrerequisiteError(
                f"disk full: the cache {home} could not be written ({reason})",
                "Free some space and run the same command again; the cache may be deleted.",
            ) from error
        raise PrerequisiteError(
            f"the cache {home} cannot be used ({reason})", "Make the folder writable, or delete it."
        ) from error
