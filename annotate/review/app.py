"""Open FiftyOne on a workspace: database up, data set built, page served on loopback until Ctrl-C."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from annotate.review.dataset import MOST_USEFUL_FIRST, Built, build
from annotate.review.sample import ReviewSample
from annotate.review.server import database
from dsmoe_core.errors import ReviewError
from dsmoe_core.loopback import LOOPBACK, need_free_port


class Page(NamedTuple):
    """Where people find the data set, and what was done to it.

    Attributes:
        address: the whole data set.
        most_useful: deep link to the saved view, pictures worth a person's time first.
    """

    address: str
    most_useful: str
    built: Built


def launch(
    name: str,
    samples: Iterable[ReviewSample],
    *,
    folder: Path,
    port: int = 5151,
    uri: str | None = None,
    announce: Callable[[Page], None],
    progress: Callable[[int, int], None] | None = None,
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
    # FiftyOne would join whatever FiftyOne answers on that port, another workspace's included.
    need_free_port(port, "FiftyOne", ReviewError)
    end = until or threading.Event()
    with database(folder, uri):
        built = build(name, samples, progress=progress)
        session = _serve(name, port)
        try:
            announce(page(name, port, built))
            while not end.wait(1.0):  # a wait without end would not notice Ctrl-C on every system
                pass
        except KeyboardInterrupt:
            pass  # that is how people end it
        finally:
            session.close()


def page(name: str, port: int, built: Built) -> Page:
    """The links to a data set."""
    address = f"http://{LOOPBACK}:{port}/datasets/{quote(name)}"
    view = MOST_USEFUL_FIRST.lower().replace(" ", "-")
    return Page(address, f"{address}?view={view}", built)


def _serve(name: str, port: int) -> Any:
    import fiftyone as fo
    from fiftyone.core.service import ServiceListenTimeout

    try:
        # The address is given because FiftyOne listens on 0.0.0.0 where it thinks it is in a container.
        return fo.launch_app(fo.load_dataset(name), remote=True, address=LOOPBACK, port=port)
    except (ServiceListenTimeout, RuntimeError, OSError) as error:
        raise ReviewError(
            f"FiftyOne's page did not start on port {port} ({error})", "Try another port with --port."
        ) from error
