"""Tests of starting, finding and stopping the server, with a stub program and with Label Studio."""

from __future__ import annotations

import logging
import os
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from ports import taken_port

from annotate import environments
from annotate.studio import environment
from annotate.studio.protocol import Connection
from annotate.studio.server import LabelStudioServer
from dsmoe_core.errors import PrerequisiteError, StudioError

# Responds like Label Studio to the health check and to the sign-in.
RESPONDS = """
import http.server, os, sys
port = int(sys.argv[sys.argv.index("--port") + 1])
token = os.environ["LABEL_STUDIO_USER_TOKEN"]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        accepted = self.path == "/health" or self.headers.get("Authorization") == f"Token {token}"
        self.send_response(200 if accepted else 401)
        self.end_headers()
        self.wfile.write(b'{"status": "UP"}')
print("environment:", sorted(os.environ), flush=True)
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
DIES = """
import os, sys
print("migrating")
sys.exit("no such table; signed in with " + os.environ["LABEL_STUDIO_USER_TOKEN"])
"""
HANGS = "import time; time.sleep(60)"

Make = Callable[..., LabelStudioServer]


@pytest.fixture
def make(tmp_path: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Function that returns a server with one of the scripts above; stops all servers at the end."""
    servers: list[LabelStudioServer] = []

    def server(script: str, **options: object) -> LabelStudioServer:
        program = tmp_path / "label-studio"
        program.write_text(f"#!{sys.executable}\n{script}")
        program.chmod(0o755)
        monkeypatch.setattr(environment, "ensure", lambda environments, on_status: program)
        options = {"port": free_port(), "start_timeout": 30.0, **options}
        servers.append(LabelStudioServer(tmp_path / "studio", tmp_path, tmp_path / "envs", **options))  # type: ignore[arg-type]
        return servers[-1]

    yield server
    for started in servers:
        started.stop()


def test_second_start_finds_the_running_server_on_its_port(make: Make) -> None:
    first, second = make(RESPONDS), make(RESPONDS)
    messages: list[str] = []
    connection = first.start(messages.append)
    assert messages
    assert second.start() == connection
    assert first.status() == second.status()
    assert first.status().healthy
    assert second.stop()
    assert not first.status().running
    assert not first.stop()


def test_concurrent_processes_start_one_server(make: Make) -> None:
    servers = [make(RESPONDS) for _ in range(2)]
    connections: list[Connection] = []
    threads = [threading.Thread(target=lambda s=s: connections.append(s.start())) for s in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(connections) == 2
    assert connections[0] == connections[1]


def test_start_after_an_interrupted_start_finds_the_server(make: Make) -> None:
    server = make(RESPONDS)

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        server.start(interrupt)
    pid = server.status().pid
    assert pid is not None
    server.start()
    assert server.status().pid == pid


def test_killed_server_is_started_again_with_the_same_credentials(make: Make) -> None:
    server = make(RESPONDS)
    connection = server.start()
    pid = server.status().pid
    assert pid is not None
    os.killpg(pid, signal.SIGKILL)
    while server.status().running:  # the process takes a moment to end
        time.sleep(0.01)
    assert server.start() == connection
    assert server.status().pid != pid


def test_secrets_are_not_shown_or_logged(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server = make(RESPONDS)
    connection = server.start()
    for secret in (connection.password, connection.token):
        assert secret not in repr(connection)
        assert secret not in caplog.text
        assert secret not in server.log.read_text()
    assert stat.S_IMODE((server.data_dir / "credentials.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(server.data_dir.stat().st_mode) == 0o700
    assert (len(connection.token), connection.url.startswith("http://127.0.0.1:")) == (40, True)


def test_environment_variables_are_not_inherited(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOST", "PORT", "USERNAME", "PASSWORD"):
        monkeypatch.setenv(name, "from outside")
    server = make(RESPONDS)
    server.start()
    output = server.log.read_text()
    assert "LABEL_STUDIO_USERNAME" in output
    assert not any(f"'{name}'" in output for name in ("HOST", "PORT", "USERNAME", "PASSWORD"))


def test_port_in_use_is_refused(make: Make) -> None:
    with socket.socket() as blocker:
        blocker.bind(("127.0.0.1", 0))
        blocker.listen()
        port = blocker.getsockname()[1]
        with pytest.raises(StudioError, match=str(port)):
            make(RESPONDS, port=port).start()


def test_next_port_is_used_and_kept_where_the_port_was_not_asked_for(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    with taken_port() as port:
        server = make(RESPONDS, port=port, fixed_port=False)
        url = server.start().url
        used = int(url.rpartition(":")[2])
        assert used > port
        assert server.status().url == url
        assert f"port {used}" in caplog.text
    assert make(RESPONDS, port=port, fixed_port=False).start().url == url  # a running server keeps its port


def test_invalid_port_number_is_refused(make: Make) -> None:
    with pytest.raises(StudioError, match="99999"):
        make(RESPONDS, port=99999).start()


def test_failed_start_shows_the_log_without_the_token(make: Make) -> None:
    server = make(DIES)
    with pytest.raises(StudioError, match="migrating") as caught:
        server.start()
    message = str(caught.value)
    assert "signed in with ***" in message
    assert str(server.log) in message
    assert not server.status().running


def test_hanging_start_is_reported(make: Make) -> None:
    with pytest.raises(StudioError, match=r"start_timeout|log"):
        make(HANGS, start_timeout=0.2).start()


def test_damaged_credentials_are_reported(make: Make) -> None:
    server = make(RESPONDS)
    server.data_dir.mkdir()
    (server.data_dir / "credentials.json").write_text("{")
    with pytest.raises(StudioError, match=r"credentials\.json"):
        server.start()


def test_full_disk_is_reported_before_the_start(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10**7})())
    server = make(RESPONDS)
    with pytest.raises(PrerequisiteError, match=r"0\.0 GB"):
        server.start()
    assert not server.status().running


def test_data_folder_that_cannot_be_created_is_reported(make: Make, tmp_path: Path) -> None:
    (tmp_path / "studio").write_text("a file")
    with pytest.raises(PrerequisiteError, match=str(tmp_path / "studio")):
        make(RESPONDS).start()


@pytest.mark.labelstudio
def test_real_server_is_found_again_and_accepts_the_sign_in(label_studio_server: LabelStudioServer) -> None:
    connection = label_studio_server.start()
    assert label_studio_server.start() == connection
    assert label_studio_server.status().healthy
    page = httpx.get(f"{connection.url}/user/login/")
    assert page.status_code == 200
    log = label_studio_server.log.read_text()
    assert connection.token not in log
    assert connection.password not in log
