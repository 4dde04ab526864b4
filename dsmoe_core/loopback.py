"""Loopback addresses, and free ports for the servers that dsmoe starts on this machine."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Collection
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from dsmoe_core.errors import DsmoeError

LOOPBACK = "127.0.0.1"
MAX_PORT = 65535
PORTS_TRIED = 100
"""Number of ports above a taken one that are tried."""
_LISTEN = "0A"
"""State of a listening socket in /proc/net/tcp."""
_log = logging.getLogger(__name__)


def is_loopback(url: str) -> bool:
    """Whether a URL is on this machine. Such requests must not go through a proxy."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # a host name
        return False


def check_port_is_free(port: int, what: str, error: type[DsmoeError], host: str = LOOPBACK) -> None:
    """Check that a port is free before a server starts on it.

    Some servers take the next free port without a message, or share the port of a running server.

    Args:
        what: name of the server, for the message.
        error: class of the exception.
        host: address that the server listens on.

    Raises:
        DsmoeError: an ``error``: the port is in use, not permitted, or not a valid port number; or the host
            is not an address of this machine.
    """
    if not 1 <= port <= MAX_PORT:
        raise error(f"port {port} for {what} is not a port number; expected 1 to {MAX_PORT}", "Correct it.")
    refused = _bind_error(port, host)
    if refused is None:
        return
    if refused.errno == errno.EADDRINUSE:
        raise error(
            f"port {port} for {what} is taken{_by_process(port)}",
            "Choose another port with --port, omit --port to use the next free one, or stop that program.",
        )
    if refused.errno == errno.EACCES:
        raise error(
            f"port {port} for {what} needs the rights of an administrator", "Choose a port above 1023."
        )
    raise error(
        f"{what} cannot listen on {host}, port {port}: {refused.strerror or refused}",
        "Choose another address or port of this machine.",
    )


def free_port(port: int, what: str, error: type[DsmoeError], *, fixed: bool, host: str = LOOPBACK) -> int:
    """The port for a server: the given one or, if it is taken and not ``fixed``, the next free one.

    The use of another port is logged as a warning, which the command line shows.

    Args:
        what: name of the server, for messages.
        error: class of the exception.
        fixed: the user asked for this port, so no other one is used.
        host: address that the server listens on.

    Raises:
        DsmoeError: see ``check_port_is_free``; or no port near the given one is free.
    """
    refused = _bind_error(port, host)
    if fixed or refused is None or refused.errno != errno.EADDRINUSE:
        check_port_is_free(port, what, error, host)
        return port
    for other in range(port + 1, min(port + PORTS_TRIED, MAX_PORT) + 1):
        if _bind_error(other, host) is None:
            _log.warning("port %d is taken%s; %s uses port %d", port, _by_process(port), what, other)
            return other
    raise error(
        f"port {port} for {what} and the {PORTS_TRIED} ports above it are taken",
        "Choose another port with --port.",
    )


def _bind_error(port: int, host: str) -> OSError | None:
    """Why a server cannot listen on a port; None where it can."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as refused:
        return refused
    return None


def _by_process(port: int) -> str:
    """The process that listens on a port, as `` by NAME (process ID)``; empty where it cannot be found out.

    It is read from /proc, so only on Linux, and only for processes of the same user.
    """
    inodes = {
        fields[9]
        for table in ("tcp", "tcp6")
        for fields in _socket_table(table)
        if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port
    }
    sockets = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").iterdir() if sockets else ():
        if process.name.isdigit() and _has_socket(process, sockets):
            return f" by {_command_name(process)} (process {process.name})"
    return ""


def _socket_table(name: str) -> list[list[str]]:
    """The rows of a table of sockets, as columns; empty where the system has no such table."""
    try:
        return [line.split() for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    except OSError:
        return []


def _has_socket(process: Path, sockets: Collection[str]) -> bool:
    """Whether a process has one of these sockets open; False where its files may not be read."""
    with suppress(OSError):
        for link in (process / "fd").iterdir():
            with suppress(OSError):  # closed in the meantime
                if str(link.readlink()) in sockets:
                    return True
    return False


def _command_name(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return "a program"
