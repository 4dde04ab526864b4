"""A MongoDB server per workspace, and FiftyOne pointed at it.

FiftyOne would start mongod itself, but one per *user*: a second workspace silently joins the first one's
server and sees the first one's data sets, whatever its database folder is set to. So we start our own, on
loopback, on a port of its own, in the workspace's folder, and give FiftyOne its address.
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
EXTERNAL_SECONDS = 10.0
"""How long we wait for a server that the user runs; it should be up already."""
EXIT_LOCK_HELD = 100
"""mongod's exit code when another one uses its folder, or it may not write there."""


@contextmanager
def database(folder: Path, uri: str | None = None) -> Iterator[str]:
    """A running database, and FiftyOne set up to use it; ours is stopped on the way out.

    Args:
        folder: where the database's files lie, one per workspace; made if missing.
        uri: a MongoDB server of the user's; then nothing is started and the folder is not touched.

    Yields:
        The address of the database.

    Raises:
        PrerequisiteError: there is no usable mongod.
        ReviewError: it does not start, or the server of that address does not answer.
    """
    if uri is not None:
        _wait_until_up(uri, None, EXTERNAL_SECONDS, "the server of DSMOE_REVIEW_URI")
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
    """Set FiftyOne up for this process, and for the servers it starts, before it is imported.

    Raises:
        ReviewError: it was imported already, for another database; it reads its settings only once.
    """
    os.environ.update(
        FIFTYONE_DATABASE_URI=uri,
        FIFTYONE_DO_NOT_TRACK="true",
        FIFTYONE_DEFAULT_APP_ADDRESS=LOOPBACK,
        FIFTYONE_SHOW_PROGRESS_BARS="false",
        FIFTYONE_LOGGING_LEVEL="ERROR",
    )
    loaded = sys.modules.get("fiftyone")
    if loaded is not None and loaded.config.database_uri != uri:
        raise ReviewError(
            f"FiftyOne uses another database in this process, {loaded.config.database_uri or 'its own'}",
            "Review one workspace per process.",
        )


def _close_fiftyone_client(uri: str) -> None:
    """Close FiftyOne's connection, or its clean-up at exit waits half a minute for the database we stop."""
    loaded = sys.modules.get("fiftyone")
    if loaded is not None and loaded.config.database_uri == uri:
        loaded.core.odm.get_db_client().close()


def _start(program: Path, folder: Path, log: Path) -> tuple[subprocess.Popen[bytes], str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)  # the database asks nobody for a password, so its files are the user's alone
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
    # By default mongod takes half of the machine's memory for its cache; training needs that more.
    command += ["--wiredTigerCacheSizeGB", "0.5"]
    return process_guard.start(command, folder / "mongod.out"), f"mongodb://{LOOPBACK}:{port}"


def _wait_until_up(uri: str, server: subprocess.Popen[bytes] | None, seconds: float, where: str) -> None:
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
            raise ReviewError(*_why_it_ended(server.returncode, Path(where)))
        if time.monotonic() > deadline:
            raise ReviewError(
                f"the review database does not answer ({reason})", f"See {where}, then try again."
            )


def _why_it_ended(code: int, log: Path) -> tuple[str, str]:
    if code == EXIT_LOCK_HELD:
        return (
            f"the review database in {log.parent} is in use by another process, or may not be written",
            "Close the other `dsmoe review` of this workspace.",
        )
    return f"the review database ended at once with code {code}: {_last_error(log)}", f"See {log}."


def _last_error(log: Path) -> str:
    """mongod's own last words of severity error or fatal; its log has one JSON object a line."""
    if not log.is_file():
        return "it wrote no log"
    for line in reversed(log.read_text(encoding="utf-8", errors="replace").splitlines()):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if entry.get("s") in {"E", "F"}:
            return str(entry.get("attr", {}).get("error") or entry.get("msg"))
    return "its log names no error"
