"""A port that another program listens on."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def taken_port(host: str = "127.0.0.1") -> Iterator[int]:
    """A port on which this process listens."""
    with socket.socket() as listener:
        listener.bind((host, 0))
        listener.listen()
        yield int(listener.getsockname()[1])
