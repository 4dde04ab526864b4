"""Letter-boxed pictures kept on disk in LMDB, so that a picture is decoded once and not in every training.

What is kept is the raw square, under the picture's key, in a folder of its own for every way of reading:
side, preprocessing, Pillow's version and the code that makes squares. A changed setting is another folder, so
no old cache is read. Whoever opens a cache that no one else has open looks it through first, without LMDB:
that trusts its file, and a torn one can take the whole process down (SIGBUS). A torn cache is begun anew,
and each square carries a checksum. Nothing is lost with a cache but time.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import weakref
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import lmdb
import numpy as np
import PIL
from jaxtyping import UInt8
from lmdb.verify import VerifyError, verify

from dsmoe_core.config import ModelConfig
from dsmoe_core.data import letterbox
from dsmoe_core.data.letterbox import Squares
from dsmoe_core.errors import NO_ROOM, PrerequisiteError
from dsmoe_core.schema import Picture

MOST_BYTES = 8 << 30
"""Of one cache, by default. So much address space is reserved; the file grows with what is in it."""
COMMIT_BYTES = 32 << 20
"""So much is kept in memory before it is written, and lost by a kill."""
_NAMES_CONTENT = re.compile("[0-9a-f]{64}(@.*)?")  # what comes after the sha256 is the place of a tile
_SETTINGS = b"settings"
_MADE_BY: Final = hashlib.sha256(Path(letterbox.__file__).read_bytes()).hexdigest()[:8]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PictureCache:
    """Where squares may be kept.

    Attributes:
        folder: made if missing; there is one cache in it for every way of reading.
        most_bytes: a cache of this size takes no more; further squares are made anew each time.
    """

    folder: Path
    most_bytes: int = MOST_BYTES


def squares_of(model: ModelConfig, cache: PictureCache | None) -> Squares | SquareCache:
    """Reads pictures as this model wants them, through a cache if there is one.

    Raises:
        PrerequisiteError: the disk of the cache is full, or its folder cannot be written.
    """
    squares = Squares.of(model)
    return squares if cache is None else SquareCache(squares, cache)


class SquareCache:
    """Squares that are read from disk where they were made before. Many processes may use one at a time.

    Args:
        squares: makes what is not there yet.
        cache: where. A picture whose key is no sha256, and so names no content, is read from its file.

    Raises:
        PrerequisiteError: the disk is full, or the folder cannot be written.
    """

    def __init__(self, squares: Squares, cache: PictureCache) -> None:
        self._squares = squares
        self._store = _Store.shared(cache, _settings(squares))
        self._waiting: dict[bytes, bytes] = {}
        self._waiting_bytes = 0

    @property
    def side(self) -> int:
        """Of the square, in pixels."""
        return self._squares.side

    def read(self, picture: Picture) -> UInt8[np.ndarray, "side side 3"]:
        """The picture's square; one that is not there is made, and written with the next :meth:`flush`.

        Raises:
            PrerequisiteError: the disk is full.
        """
        if not _NAMES_CONTENT.fullmatch(picture.key):
            return self._squares.read(picture)
        key = hashlib.sha256(picture.key.encode()).digest()
        kept = self._waiting.get(key) or self._store.get(key)
        shape = (self.side, self.side, 3)
        if kept is not None and len(kept) == np.prod(shape):
            return np.frombuffer(kept, dtype=np.uint8).reshape(shape)
        square = self._squares.read(picture)
        self._waiting[key] = square.tobytes()
        self._waiting_bytes += square.nbytes
        if self._waiting_bytes >= COMMIT_BYTES:
            self.flush()
        return square

    def flush(self) -> None:
        """Write what was made since the last time.

        Raises:
            PrerequisiteError: the disk is full.
        """
        waiting, self._waiting, self._waiting_bytes = self._waiting, {}, 0
        if waiting:
            self._store.put(waiting)


def _settings(squares: Squares) -> bytes:
    """All that decides what a square looks like."""
    shape = {"side": squares.side, "preprocessing": squares.preprocessing.model_dump(mode="json")}
    return json.dumps({**shape, "made_by": _MADE_BY, "pillow": PIL.__version__}, sort_keys=True).encode()


class _Store:
    """One LMDB environment, opened once in a process however many use it, closed with the last of them."""

    _open: ClassVar[weakref.WeakValueDictionary[Path, _Store]] = weakref.WeakValueDictionary()

    def __init__(self, home: Path, settings: bytes, most_bytes: int) -> None:
        self._home = home
        self._takes_more = True
        with _clear_errors(home):
            home.mkdir(parents=True, exist_ok=True)
            lock = os.open(home / "in_use", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            weakref.finalize(self, os.close, lock)
            if _locked(lock, fcntl.LOCK_EX) and not _is_whole(home, settings):
                _log.warning("the picture cache %s was torn and is begun anew", home)
                for name in ("data.mdb", "lock.mdb"):
                    (home / name).unlink(missing_ok=True)
            fcntl.flock(lock, fcntl.LOCK_SH)  # waits for whoever looks it through
            self._lmdb = lmdb.open(str(home), map_size=most_bytes, readahead=False)
            weakref.finalize(self, self._lmdb.close)
            self._lmdb.reader_check()  # frees the places of readers that were killed
        if self.get(_SETTINGS) is None:
            self.put({_SETTINGS: settings})

    @classmethod
    def shared(cls, cache: PictureCache, settings: bytes) -> _Store:
        """The store of these settings; those that today's code can never read again are removed."""
        folder = cache.folder.expanduser().resolve()
        home = folder / f"{_MADE_BY}-{hashlib.sha256(settings).hexdigest()[:16]}"
        store = cls._open.get(home)
        if store is None:
            _remove_unreadable(folder)
            store = cls._open[home] = cls(home, settings, cache.most_bytes)
        return store

    def get(self, key: bytes) -> bytes | None:
        """What is there under this key; None where nothing is, or where its checksum is wrong."""
        try:
            with self._lmdb.begin() as view:
                record = view.get(key)
        except lmdb.MapResizedError:  # another process was allowed more than we were
            self._lmdb.set_mapsize(0)
            return self.get(key)
        except lmdb.Error as error:
            _log.warning("the picture cache %s cannot be read: %s", self._home, error)
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
            _log.warning("the picture cache %s has reached its bound of %d bytes", self._home, size)


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


def _remove_unreadable(folder: Path) -> None:
    """Remove caches that other code has made, unless someone has them open."""
    for home in folder.glob("*-*"):
        if not home.name.startswith(_MADE_BY) and (home / "in_use").is_file():
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
        if code in (*NO_ROOM, errno.EIO):  # EIO: what LMDB makes of a short write
            raise PrerequisiteError(
                f"disk full: the picture cache {home} could not be written ({reason})",
                "Free some space and run the same command again; the cache may be deleted.",
            ) from error
        raise PrerequisiteError(
            f"the picture cache {home} cannot be used ({reason})", "Make the folder writable, or delete it."
        ) from error
