"""Starting, detection and stopping the server: with a stub program that is quick, and with the real one."""

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

from annotate import environments
from annotate.studio import environment
from annotate.studio.protocol import Connection
from annotate.studio.server import LabelStudioServer
from dsmoe_core.errors import PrerequisiteError, StudioError

# Answers as Label Studio does while it starts and when it is asked who we are.
ANSWERS = """
import http.server, os, sys
port = int(sys.argv[sys.argv.index("--port") + 1])
token = os.environ["LABEL_STUDIO_USER_TOKEN"]
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        good = self.path == "/health" or self.headers.get("Authorization") == f"Token {token}"
        self.send_response(200 if good else 401)
        self.end_headers()
        self.wfile.write(b'{"status": "UP"}')
print("environment:", sorted(os.environ), flush=True)
http.server.HTTPServer(("127.0.0.1", port), Page).serve_forever()
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
    """A server whose program is one of the scripts above; all of them are stopped afterwards."""
    made: list[LabelStudioServer] = []

    def server(script: str, **options: object) -> LabelStudioServer:
        program = tmp_path / "label-studio"
        program.write_text(f"#!{sys.executable}\n{script}")
        program.chmod(0o755)
        monkeypatch.setattr(environment, "ensure", lambda environments, on_status: program)
        options = {"port": free_port(), "start_timeout": 30.0, **options}
        made.append(LabelStudioServer(tmp_path / "studio", tmp_path, tmp_path / "envs", **options))  # type: ignore[arg-type]
        return made[-1]

    yield server
    for one in made:
        one.stop()


def test_up_again_finds_the_running_server_whatever_port_is_asked_for(make: Make) -> None:
    first, second = make(ANSWERS), make(ANSWERS)
    said: list[str] = []
    connection = first.start(said.append)
    assert said[0] == "starting Label Studio"
    assert second.start() == connection
    assert first.status() == second.status()
    assert first.status().healthy
    assert second.stop()
    assert not first.status().running
    assert not first.stop()


def test_two_processes_at_once_start_one_server(make: Make) -> None:
    servers = [make(ANSWERS) for _ in range(2)]
    got: list[Connection] = []
    threads = [threading.Thread(target=lambda s=s: got.append(s.start())) for s in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 2
    assert got[0] == got[1]


def test_killed_while_it_starts_the_next_up_takes_over(make: Make) -> None:
    server = make(ANSWERS)

    def kill(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        server.start(kill)
    pid = server.status().pid
    assert pid is not None
    server.start()
    assert server.status().pid == pid


def test_a_server_that_was_killed_is_started_again_with_the_same_credentials(make: Make) -> None:
    server = make(ANSWERS)
    connection = server.start()
    pid = server.status().pid
    assert pid is not None
    os.killpg(pid, signal.SIGKILL)
    while server.status().running:  # it takes a moment to be gone
        time.sleep(0.01)
    assert server.start() == connection
    assert server.status().pid != pid


def test_secrets_stay_secret(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server = make(ANSWERS)
    connection = server.start()
    for secret in (connection.password, connection.token):
        assert secret not in repr(connection)
        assert secret not in caplog.text
        assert secret not in server.log.read_text()
    assert stat.S_IMODE((server.data_dir / "credentials.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(server.data_dir.stat().st_mode) == 0o700
    assert (len(connection.token), connection.url.startswith("http://127.0.0.1:")) == (40, True)


def test_nothing_of_our_environment_reaches_it(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOST", "PORT", "USERNAME", "PASSWORD"):
        monkeypatch.setenv(name, "from outside")
    server = make(ANSWERS)
    server.start()
    seen = server.log.read_text()
    assert "LABEL_STUDIO_USERNAME" in seen
    assert not any(f"'{name}'" in seen for name in ("HOST", "PORT", "USERNAME", "PASSWORD"))


def test_a_port_in_use_is_named_with_the_remedy(make: Make) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StudioError, match=rf"port {port} .* in use\. Choose another with --port"):
            make(ANSWERS, port=port).start()


def test_a_number_that_is_no_port_is_refused(make: Make) -> None:
    with pytest.raises(StudioError, match="port 99999"):
        make(ANSWERS, port=99999).start()


def test_one_that_ends_while_starting_shows_the_end_of_its_log_without_the_token(make: Make) -> None:
    server = make(DIES)
    with pytest.raises(StudioError, match="ended while it was starting") as caught:
        server.start()
    message = str(caught.value)
    assert "migrating" in message
    assert "signed in with ***" in message
    assert str(server.log) in message
    assert not server.status().running


def test_one_that_hangs_while_starting_is_reported(make: Make) -> None:
    with pytest.raises(StudioError, match="did not answer within"):
        make(HANGS, start_timeout=0.2).start()


def test_damaged_credentials_are_named(make: Make) -> None:
    server = make(ANSWERS)
    server.data_dir.mkdir()
    (server.data_dir / "credentials.json").write_text("{")
    with pytest.raises(StudioError, match=r"credentials\.json is damaged"):
        server.start()


def test_a_full_disk_is_named_before_anything_starts(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10**7})())
    server = make(ANSWERS)
    with pytest.raises(PrerequisiteError, match=r"only 0\.0 GB are free"):
        server.start()
    assert not server.status().running


def test_a_data_folder_that_cannot_be_made_is_named(make: Make, tmp_path: Path) -> None:
    (tmp_path / "studio").write_text("a file")
    with pytest.raises(PrerequisiteError, match="cannot make the folder"):
        make(ANSWERS).start()


@pytest.mark.labelstudio
def test_the_real_one_is_found_again_and_accepts_our_sign_in(label_studio_server: LabelStudioServer) -> None:
    connection = label_studio_server.start()
    assert label_studio_server.start() == connection
    assert label_studio_server.status().healthy
    page = httpx.get(f"{connection.url}/user/login/")
    assert page.status_code == 200
    log = label_studio_server.log.read_text()
    assert connection.token not in log
    assert connection.password not in log
