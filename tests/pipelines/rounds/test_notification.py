"""Notifications by a real local HTTP server and by a real command."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipelines.rounds.notification import Notifier
from pipelines.settings.policy import NotifySettings

SECRET = "T0-secret-part"


class Hook:
    """A webhook that keeps what it gets."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.types: list[str] = []
        self.status, self.delay_s = 200, 0.0
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                time.sleep(hook.delay_s)
                hook.bodies.append(json.loads(body))
                hook.types.append(self.headers["Content-Type"])
                self.send_response(hook.status)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                """Print nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/{SECRET}"
        self._thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


@pytest.fixture
def hook() -> Iterator[Hook]:
    opened = Hook()
    yield opened
    opened.close()


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def notifier(lines: list[str]) -> Notifier:
    return Notifier(lines.append)


def test_event_is_posted_as_json_and_its_address_is_not_logged(
    hook: Hook, notifier: Notifier, lines: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    settings = NotifySettings(webhook_url=hook.url)
    notifier.send(settings, "refused", {"round": 3, "message": "no gain"})
    notifier.send(settings, "failed", {"message": "Label Studio"})
    notifier.close(20)
    assert hook.bodies == [
        {"event": "refused", "round": 3, "message": "no gain"},
        {"event": "failed", "message": "Label Studio"},
    ]
    assert hook.types == ["application/json"] * 2
    assert lines == []
    assert SECRET not in caplog.text


def test_failures_are_one_line_each_without_the_address(
    hook: Hook, notifier: Notifier, lines: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    hook.status = 503
    notifier.send(NotifySettings(webhook_url=hook.url), "drift", {})
    notifier.close(20)
    assert len(lines) == 1
    assert "503" in lines[0]
    hook.close()
    notifier.send(NotifySettings(webhook_url=hook.url), "drift", {})
    notifier.send(NotifySettings(webhook_url=f"http://[bad/{SECRET}"), "drift", {})
    notifier.close(20)
    assert len(lines) == 3
    assert all(len(line.splitlines()) == 1 for line in lines)
    assert SECRET not in " ".join(lines) + caplog.text
    hook.server.server_close = lambda: None  # type: ignore[method-assign]
    hook.server.shutdown = lambda: None  # type: ignore[method-assign]


def test_slow_webhook_does_not_block_and_times_out(hook: Hook, notifier: Notifier, lines: list[str]) -> None:
    hook.delay_s = 1.0
    started = time.monotonic()
    notifier.send(NotifySettings(webhook_url=hook.url, timeout_s=0.1), "held", {})
    assert time.monotonic() - started < 0.5
    notifier.close(20)
    assert len(lines) == 1


def test_events_that_are_not_selected_are_not_sent(hook: Hook, notifier: Notifier) -> None:
    notifier.send(NotifySettings(webhook_url=hook.url, events=("held",)), "drift", {})
    notifier.send(NotifySettings(), "held", {})
    notifier.close(20)
    assert hook.bodies == []
    assert notifier._thread is None


def test_command_gets_the_event_on_stdin_without_a_shell(
    tmp_path: Path, notifier: Notifier, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSMOE_STUDIO_TOKEN", SECRET)
    out = tmp_path / "out $HOME;.json"
    program = (
        "import json,os,sys\n"
        "content = json.load(sys.stdin)\n"
        "names = [name for name in os.environ if name.startswith('DSMOE_')]\n"
        "open(sys.argv[1], 'w').write(json.dumps([content, names]))"
    )
    settings = NotifySettings(command=(sys.executable, "-c", program, str(out)))
    notifier.send(settings, "round-ready", {"round": 1})
    notifier.close(30)
    assert lines == []
    assert json.loads(out.read_text()) == [{"event": "round-ready", "round": 1}, []]


@pytest.mark.parametrize(
    ("command", "part"),
    [
        ((sys.executable, "-c", "raise SystemExit(3)"), "3"),
        (("/no/such/program",), "/no/such/program"),
        ((sys.executable, "-c", "import time; time.sleep(60)"), "1 s"),
    ],
)
def test_command_that_fails_is_one_line(
    notifier: Notifier, lines: list[str], command: tuple[str, ...], part: str
) -> None:
    notifier.send(NotifySettings(command=command, timeout_s=1), "failed", {})
    notifier.close(30)
    assert len(lines) == 1
    assert part in lines[0]
