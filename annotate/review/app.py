"""Opens FiftyOne on a workspace: starts the database, builds the data set and serves the app until Ctrl-C."""

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
from dsmoe_core.loopback import LOOPBACK, free_port
from dsmoe_core.progress import CountCallback

START_SECONDS = 300.0
"""Time to wait for FiftyOne. Its import takes 15 s on an idle machine and minutes on a busy one."""


class Page(NamedTuple):
    """Links to a data set in FiftyOne.

    Attributes:
        address: the whole data set.
        uncertain_view: the saved view of unlabelled images, most uncertain first.
        summary: what was changed in the data set.
    """

    address: str
    uncertain_view: str
    summary: BuildSummary


def launch(
    name: str,
    samples: Iterable[ReviewSample],
    *,
    folder: Path,
    port: int = 5151,
    fixed_port: bool = True,
    uri: str | None = None,
    announce: Callable[[Page], None],
    progress: CountCallback | None = None,
    until: threading.Event | None = None,
) -> None:
    """Show samples in FiftyOne. Returns when the user presses Ctrl-C.

    Args:
        name: of the data set; an existing one with this name is updated in place.
        folder: the database's folder, one per workspace.
        port: of the app, on 127.0.0.1.
        fixed_port: no other port is used where this one is taken; otherwise the next free one is.
        uri: address of an external MongoDB server, used instead of the workspace's own.
        announce: called once, when the app is ready.
        progress: called with (samples done, samples in total).
        until: event that ends the app without Ctrl-C.

    Raises:
        PrerequisiteError: FiftyOne or a usable mongod is missing.
        ReviewError: the port is taken, or the database or the app does not start.
    """
    port = free_port(port, "FiftyOne", ReviewError, fixed=fixed_port)
    end = until or threading.Event()
    with database(folder, uri):
        summary = build(name, samples, progress=progress)
        # Ctrl-C is the normal way to end the app.
        with _server(port, folder / "fiftyone.log") as server, suppress(KeyboardInterrupt):
            announce(page(name, port, summary))
            while not end.wait(1.0):  # on some systems a wait without timeout ignores Ctrl-C
                _check_alive(server, folder / "fiftyone.log")


def page(name: str, port: int, summary: BuildSummary) -> Page:
    """Links to a data set."""
    address = f"http://{LOOPBACK}:{port}/datasets/{quote(name)}"
    view = UNCERTAIN_VIEW.lower().replace(" ", "-")
    return Page(address, f"{address}?view={view}", summary)


@contextmanager
def _server(port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Context manager with FiftyOne's server, up and responding.

    ``fiftyone.launch_app`` is not used: it allows its server one minute, half of which is spent importing
    FiftyOne again. That is too little on a busy machine.
    """
    command = [sys.executable, "-m", "fiftyone.server.main", "--address", LOOPBACK, "--port", str(port)]
    log.parent.mkdir(parents=True, exist_ok=True)
    server = process_guard.start(command, log)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _accepts_connections(port):
            _check_alive(server, log)
            if time.monotonic() > deadline:
                raise ReviewError(
                    f"FiftyOne did not respond on port {port} within {START_SECONDS:.0f} s",
                    f"See {log}.",
                )
            time.sleep(0.2)
        yield server
    finally:
        process_guard.stop(server)


def _accepts_connections(port: int) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1.0):
            return True
    except OSError:
        return False


def _check_alive(server: subprocess.Popen[bytes], log: Path) -> None:
    if server.poll() is not None:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise ReviewError(
            f"FiftyOne ended with exit code {server.returncode}: {lines[-1] if lines else 'no output'}",
            f"See {log}.",
        )
