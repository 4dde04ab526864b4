"""Free ports: the asked-for one, the next one, and who has a taken one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from ports import taken_port

from dsmoe_core.errors import ServiceError
from dsmoe_core.loopback import check_port_is_free, free_port, is_loopback


def test_free_port_is_used() -> None:
    with taken_port() as port:
        pass
    assert free_port(port, "it", ServiceError, fixed=True) == port
    assert free_port(port, "it", ServiceError, fixed=False) == port


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])  # noqa: S104
def test_next_free_port_is_used_and_logged(host: str, caplog: pytest.LogCaptureFixture) -> None:
    with taken_port(host) as port:
        other = free_port(port, "it", ServiceError, fixed=False)
        assert port < other <= port + 100
        [record] = caplog.records
        assert record.levelname == "WARNING"
        assert {str(port), str(other)} <= set(record.getMessage().replace(";", " ").split())


def test_port_that_was_asked_for_is_an_error_with_the_process() -> None:
    with taken_port() as port, pytest.raises(ServiceError, match=rf"{port}.*process {os.getpid()}\b"):
        free_port(port, "it", ServiceError, fixed=True)


def test_process_of_another_program_is_named() -> None:
    listen = "s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True)"
    code = f"import socket; {listen}; input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        name = Path(f"/proc/{process.pid}/comm").read_text().strip()
        with pytest.raises(ServiceError, match=rf"by {name} \(process {process.pid}\)"):
            check_port_is_free(port, "it", ServiceError)
        process.communicate("\n")


@pytest.mark.parametrize("port", [0, -1, 65536, 99999])
def test_number_that_is_no_port_is_refused(port: int) -> None:
    for fixed in (True, False):
        with pytest.raises(ServiceError, match=str(port)):
            free_port(port, "it", ServiceError, fixed=fixed)


def test_host_of_another_machine_is_refused() -> None:
    with pytest.raises(ServiceError, match=r"192\.0\.2\.1"):
        free_port(8080, "it", ServiceError, fixed=False, host="192.0.2.1")


def test_connection_in_time_wait_does_not_count() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = server.accept()
            accepted.close()
    assert free_port(port, "it", ServiceError, fixed=True) == port


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://127.0.0.1:1", True),
        ("http://localhost", True),
        ("http://[::1]:2", True),
        ("http://a.example", False),
    ],
)
def test_loopback_urls(url: str, loopback: bool) -> None:
    assert is_loopback(url) is loopback
