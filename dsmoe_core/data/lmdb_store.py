"""Persistent key-value cache on LMDB for data that can be recomputed: letterboxed images, encoder features.

Each combination of settings has its own folder, so a changed setting never reads old values. A process that
opens a store that no other process uses first verifies the file without LMDB, because a truncated file can
crash the process inside LMDB (SIGBUS). A damaged store is deleted and rebuilt, and every value carries a
checksum.
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
"""Values are buffered in memory up to this size before they are written; a killed process loses them."""
_SETTINGS = b"settings"
_log = logging.getLogger(__name__)


class LmdbStore:
    """Bytes by key, shared by several processes and threads.

    Args:
        folder: created if missing; holds one store per settings. Stores with another ``made_by`` are removed
            unless they are open.
        made_by: version of the code that makes the values; letters and digits.
        settings: everything else that determines the values.
        max_bytes: size limit; further values are not stored.

    Raises:
        PrerequisiteError: the disk is full, or the folder cannot be written.
    """

    def __init__(self, folder: Path, made_by: str, settings: bytes, max_bytes: int) -> None:
        self._file = _File.shared(folder, made_by, settings, max_bytes)
        self._pending: dict[bytes, bytes] = {}
        self._pending_bytes = 0

    def get(self, key: bytes) -> bytes | None:
        """The value of a 32-byte key; None if there is none or its checksum is wrong."""
        with self._file.lock:
            return self._pending.get(key) or self._file.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        """Store a value; it is written with the next :meth:`flush`, or when COMMIT_BYTES are pending.

        Raises:
            PrerequisiteError: the disk is full.
        """
        with self._file.lock:
            self._pending[key] = value
            self._pending_bytes += len(value)
            if self._pending_bytes >= COMMIT_BYTES:
                self.flush()

    def flush(self) -> None:
        """Write all pending values.

        Raises:
            PrerequisiteError: the disk is full.
        """
        with self._file.lock:
            pending, self._pending, self._pending_bytes = self._pending, {}, 0
            if pending:
                self._file.put(pending)


class _File:
    """One LMDB environment, opened once per process and closed when its last user is gone."""

    _open: ClassVar[weakref.WeakValueDictionary[Path, _File]] = weakref.WeakValueDictionary()

    def __init__(self, home: Path, settings: bytes, max_bytes: int) -> None:
        self.lock = threading.RLock()
        self._home = home
        self._writable = True
        with _disk_errors(home):
            home.mkdir(parents=True, exist_ok=True)
            lock = os.open(home / "in_use", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            weakref.finalize(self, os.close, lock)
            if _try_lock(lock, fcntl.LOCK_EX) and not _is_intact(home, settings):
                _log.warning("the cache %s is damaged and is rebuilt", home)
                for name in ("data.mdb", "lock.mdb"):
                    (home / name).unlink(missing_ok=True)
            fcntl.flock(lock, fcntl.LOCK_SH)  # waits while another process verifies the file
            self._lmdb = lmdb.open(str(home), map_size=max_bytes, readahead=False)
            weakref.finalize(self, self._lmdb.close)
            self._lmdb.reader_check()  # frees the slots of killed readers
        if self.get(_SETTINGS) is None:
            self.put({_SETTINGS: settings})

    @classmethod
    def shared(cls, folder: Path, made_by: str, settings: bytes, max_bytes: int) -> _File:
        """The file of these settings; files of another code version are removed."""
        folder = folder.expanduser().resolve()
        home = folder / f"{made_by}-{hashlib.sha256(settings).hexdigest()[:16]}"
        file = cls._open.get(home)
        if file is None:
            _remove_outdated(folder, made_by)
            file = cls._open[home] = cls(home, settings, max_bytes)
        return file

    def get(self, key: bytes) -> bytes | None:
        """The value of a 32-byte key; None if there is none or its checksum is wrong."""
        try:
            with self._lmdb.begin() as transaction:
                record = transaction.get(key)
        except lmdb.MapResizedError:  # another process opened it with a larger limit
            self._lmdb.set_mapsize(0)
            return self.get(key)
        except lmdb.Error as error:
            _log.warning("the cache %s cannot be read: %s", self._home, error)
            self._writable = False  # the next process that opens the store rebuilds it
            return None
        if record is None or record[:4] != _checksum(key, record[4:]):
            return None
        return bytes(record[4:])

    def put(self, values: dict[bytes, bytes]) -> None:
        """Store all values, or none of them where the size limit would be exceeded.

        Raises:
            PrerequisiteError: the disk is full.
        """
        if not self._writable:
            return
        try:
            with _disk_errors(self._home), self._lmdb.begin(write=True) as transaction:
                for key, value in values.items():
                    transaction.put(key, _checksum(key, value) + value)
        except lmdb.MapResizedError:
            self._lmdb.set_mapsize(0)
            self.put(values)
        except lmdb.MapFullError:
            self._writable = False
            size = self._lmdb.info()["map_size"]
            _log.warning("the cache %s has reached its limit of %d bytes", self._home, size)


def _checksum(key: bytes, value: bytes) -> bytes:
    return zlib.crc32(value, zlib.crc32(key)).to_bytes(4, "big")


def _try_lock(lock: int, kind: int) -> bool:
    """Whether the lock could be taken without waiting."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_intact(home: Path, settings: bytes) -> bool:
    """Whether LMDB can open this store safely and it has these settings; a new store is intact."""
    try:
        if verify(str(home)):  # type: ignore[no-untyped-call]
            return False
    except FileNotFoundError:
        return True
    except VerifyError:
        return False
    with lmdb.open(str(home), readonly=True, lock=False) as file, file.begin() as transaction:
        record = transaction.get(_SETTINGS)
    return record is None or record == _checksum(_SETTINGS, settings) + settings


def _remove_outdated(folder: Path, made_by: str) -> None:
    """Remove stores of other code versions unless they are open."""
    for home in folder.glob("*-*"):
        if not home.name.startswith(made_by) and (home / "in_use").is_file():
            lock = os.open(home / "in_use", os.O_RDWR | os.O_CLOEXEC)
            try:
                if _try_lock(lock, fcntl.LOCK_EX):
                    shutil.rmtree(home, ignore_errors=True)
            finally:
                os.close(lock)


@contextmanager
def _disk_errors(home: Path) -> Iterator[None]:
    """Turn errors of a full disk or an unwritable folder into PrerequisiteError."""
    try:
        yield
    except (lmdb.MapFullError, lmdb.MapResizedError):
        raise
    except (OSError, lmdb.Error) as error:
        if isinstance(error, lmdb.Error):
            code, reason = error.code, error.reason
        else:
            code, reason = error.errno or 0, error.strerror or ""
        if code in (*DISK_FULL_ERRNOS, errno.EIO):  # LMDB reports a short write as EIO
            raise PrerequisiteError(
                f"disk full: the cache {home} could not be written ({reason})",
                "Free some space and run the same command again. Deleting the cache is safe.",
            ) from error
        raise PrerequisiteError(
            f"the cache {home} cannot be used ({reason})", "Make the folder writable or delete it."
        ) from error
