"""Open FiftyOne on a workspace: database up, data set built, page served on loopback until Ctrl-C."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from annotate.review import process_guard
from annotate.review.dataset import UNCERTAIN_VIEW, BuildSummary, build
from annotate.review.sample import ReviewSample
from annotate.review.server import database
from dsmoe_core.errors import ReviewError
from dsmoe_core.loopback import LOOPBACK, check_port_is_free
from dsmoe_core.progress import CountCallback

START_SECONDS = 300.0
"""FiftyOne imports for a quarter of a minute on an idle machine, and for minutes on a busy one."""


class Page(NamedTuple):
    """Where people find the data set, and what was done to it.

    Attributes:
        address: the whole data set.
        uncertain_view: deep link to the saved view, images worth a person's time first.
    """

    address: str
    uncertain_view: str
    built: BuildSummary


def launch(
    name: str,
    samples: Iterable[ReviewSample],
    *,
    folder: Path,
    port: int = 5151,
    uri: str | None = None,
    announce: Callable[[Page], None],
    progress: CountCallback | None = None,
    until: threading.Event | None = None,
) -> None:
    """Show these samples in FiftyOne and return when the user presses Ctrl-C.

    Args:
        name: of the data set; an earlier one of the same name is updated in place.
        folder: the database's folder, one per workspace.
        port: of the page, on 127.0.0.1.
        uri: a MongoDB server of the user's, instead of our own.
        announce: called once, when the page can be opened.
        progress: called with (samples done, samples in all).
        until: set it to end without Ctrl-C.

    Raises:
        PrerequisiteError: FiftyOne or a usable mongod is missing.
        ReviewError: the port is in use, or the database or the page does not start.
    """
    check_port_is_free(port, "FiftyOne", ReviewError)
    end = until or threading.Event()
    with database(folder, uri):
        built = build(name, samples, progress=progress)
        # Ctrl-C is how people end it, and no error.
        with _server(port, folder / "fiftyone.log") as server, suppress(KeyboardInterrupt):
            announce(page(name, port, built))
            while not end.wait(1.0):  # a wait without end would not notice Ctrl-C on every system
                _need_alive(server, folder / "fiftyone.log")


def page(name: str, port: int, built: BuildSummary) -> Page:
    """The links to a data set."""
    address = f"http://{LOOPBACK}:{port}/datasets/{quote(name)}"
    view = UNCERTAIN_VIEW.lower().replace(" ", "-")
    return Page(address, f"{address}?view={view}", built)


@contextmanager
def _server(port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """FiftyOne's own server, up and answering.

    Not ``fiftyone.launch_app``: that gives its server a minute, of which half goes into importing FiftyOne a
    second time, and a busy machine needs longer.
    """
    words = [sys.executable, "-m", "fiftyone.server.main", "--address", LOOPBACK, "--port", str(port)]
    log.parent.mkdir(parents=True, exist_ok=True)
    server = process_guard.start(words, log)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(port):
            _need_alive(server, log)
            if time.monotonic() > deadline:
                raise ReviewError(
                    f"FiftyOne did not answer on port {port} within {START_SECONDS:.0f} s",
                    f"See {log}.",
                )
            time.sleep(0.2)
        yield server
    finally:
        process_guard.stop(server)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1.0):
            return True
    except OSError:
        return False


def _need_alive(server: subprocess.Popen[bytes], log: Path) -> None:
    if server.poll() is not None:
        said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise ReviewError(
            f"FiftyOne ended with code {server.returncode}: {said[-1] if said else 'it said nothing'}",
            f"See {log}.",
        )
