"""Where our servers listen: on this machine only, on a port that is free."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from urllib.parse import urlsplit

from dsmoe_core.errors import DsmoeError

LOOPBACK = "127.0.0.1"


def is_loopback(url: str) -> bool:
    """Whether an address is this machine's own: a proxy for the outside would swallow it."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def check_port_is_free(port: int, what: str, error: type[DsmoeError]) -> None:
    """Refuse a port in use before a server does: some quietly take the next one, or join who listens there.

    Args:
        what: the server that wants it, for the message.
        error: the kind to raise.

    Raises:
        DsmoeError: of that kind: something listens there, the system does not let us, or it is no port.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except (OSError, OverflowError) as refused:
            reason = refused.strerror if isinstance(refused, OSError) else "it is no port number"
            raise error(
                f"port {port} on {LOOPBACK} cannot be used for {what}: {reason}",
                "Choose another with --port, or end the program that uses it.",
            ) from refused
