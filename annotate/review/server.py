"""Runs a MongoDB server per workspace and configures FiftyOne to use it.

FiftyOne would start one mongod per *user*: a second workspace would silently connect to the server of the
first one and see its data sets, even with another database folder. So each workspace starts its own mongod
in its own folder, on the loopback address and a free port, and passes the address to FiftyOne.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from annotate.review import process_guard
from annotate.review.database import find_mongod
from dsmoe_core.errors import ReviewError
from dsmoe_core.loopback import LOOPBACK

START_SECONDS = 60.0
"""Time to wait for the mongod that is started here."""
EXTERNAL_SECONDS = 10.0
"""Time to wait for an external server, which should already run."""
EXIT_LOCK_HELD = 100
"""mongod's exit code if another process uses its folder, or the folder is not writable."""


@contextmanager
def database(folder: Path, uri: str | None = None) -> Iterator[str]:
    """Context manager with a running database that FiftyOne is configured to use.

    Args:
        folder: folder for the database's files, one per workspace; created if missing.
        uri: address of an external MongoDB server. If given, nothing is started and ``folder`` is not used.

    Yields:
        The address of the database.

    Raises:
        PrerequisiteError: there is no usable mongod.
        ReviewError: the database does not start, or the external server does not respond.
    """
    if uri is not None:
        _wait_until_up(uri, None, EXTERNAL_SECONDS, "the log of the server of DSMOE_REVIEW_URI")
        configure_fiftyone(uri)
        yield uri
        return
    program = find_mongod()
    log = folder / "mongod.log"
    server, address = _start(program, folder, log)
    try:
        _wait_until_up(address, server, START_SECONDS, str(log))
        configure_fiftyone(address)
        yield address
    finally:
        _close_fiftyone_client(address)
        process_guard.stop(server)


def configure_fiftyone(uri: str) -> None:
    """Set FiftyOne's environment variables for this process and its children. Call before importing it.

    Raises:
        ReviewError: FiftyOne is already imported with another database; it reads its settings only once.
    """
    os.environ.update(
        FIFTYONE_DATABASE_URI=uri,
        FIFTYONE_DO_NOT_TRACK="true",
        FIFTYONE_DEFAULT_APP_ADDRESS=LOOPBACK,
        FIFTYONE_SHOW_PROGRESS_BARS="false",
        FIFTYONE_LOGGING_LEVEL="ERROR",
    )
    fiftyone = sys.modules.get("fiftyone")
    if fiftyone is not None and fiftyone.config.database_uri != uri:
        raise ReviewError(
            f"FiftyOne uses another database in this process: {fiftyone.config.database_uri or 'its own'}",
            "Review one workspace per process.",
        )


def _close_fiftyone_client(uri: str) -> None:
    """Close FiftyOne's connection. Otherwise its exit handler waits 30 s for the stopped database."""
    fiftyone = sys.modules.get("fiftyone")
    if fiftyone is not None and fiftyone.config.database_uri == uri:
        fiftyone.core.odm.get_db_client().close()


def _start(program: Path, folder: Path, log: Path) -> tuple[subprocess.Popen[bytes], str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)  # the database has no password
    except OSError as error:
        raise ReviewError(
            f"the review database's folder {folder} cannot be used ({error.strerror})",
            "Make the workspace writable.",
        ) from error
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port = probe.getsockname()[1]
    command = [str(program), "--dbpath", str(folder), "--logpath", str(log)]
    command += ["--bind_ip", LOOPBACK, "--port", str(port), "--nounixsocket"]
    # mongod's default cache is half of the machine's memory, which training needs.
    command += ["--wiredTigerCacheSizeGB", "0.5"]
    return process_guard.start(command, folder / "mongod.out"), f"mongodb://{LOOPBACK}:{port}"


def _wait_until_up(uri: str, server: subprocess.Popen[bytes] | None, seconds: float, log: str) -> None:
    from pymongo import MongoClient
    from pymongo.errors import PyMongoError

    deadline = time.monotonic() + seconds
    while True:
        try:
            with MongoClient[dict[str, object]](uri, serverSelectionTimeoutMS=500) as client:
                client.admin.command("ping")
        except PyMongoError as error:
            reason = str(error).split(",")[0]
        else:
            return
        if server is not None and server.poll() is not None:
            raise _exit_error(server.returncode, Path(log))
        if time.monotonic() > deadline:
            raise ReviewError(
                f"the review database does not respond ({reason})", f"Check {log}, then try again."
            )


def _exit_error(code: int, log: Path) -> ReviewError:
    if code == EXIT_LOCK_HELD:
        return ReviewError(
            f"the review database in {log.parent} is in use by another process, or is not writable",
            "Close the other `dsmoe review` of this workspace.",
        )
    return ReviewError(f"the review database ended with exit code {code}: {_last_error(log)}", f"See {log}.")


def _last_error(log: Path) -> str:
    """The last entry of severity error or fatal in mongod's log, which has one JSON object per line."""
    if not log.is_file():
        return "there is no log"
    for line in reversed(log.read_text(encoding="utf-8", errors="replace").splitlines()):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if entry.get("s") in {"E", "F"}:
            return str(entry.get("attr", {}).get("error") or entry.get("msg"))
    return "the log has no error"
