"""Loopback addresses and free ports for the servers that dsmoe starts on this machine."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from urllib.parse import urlsplit

from dsmoe_core.errors import DsmoeError

LOOPBACK = "127.0.0.1"


def is_loopback(url: str) -> bool:
    """Whether a URL is on this machine. Such requests must not go through a proxy."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # a host name
        return False


def check_port_is_free(port: int, what: str, error: type[DsmoeError]) -> None:
    """Check that a port is free before a server starts on it.

    Some servers take the next free port without a message, or share the port of a running server.

    Args:
        what: name of the server, for the message.
        error: class of the exception.

    Raises:
        DsmoeError: an ``error``: the port is in use, not permitted, or not a valid port number.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except (OSError, OverflowError) as refused:
            reason = refused.strerror if isinstance(refused, OSError) else "it is not a port number"
            raise error(
                f"port {port} on {LOOPBACK} cannot be used for {what}: {reason}",
                "Choose another port with --port, or stop the program that uses it.",
            ) from refused
