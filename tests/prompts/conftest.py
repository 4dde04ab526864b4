"""A small server that speaks the OpenAI protocol, and both kinds of model over the same script."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from prompts.llm import FakeModel, LanguageModel, OpenAIModel, Reply

KEY = "sk-very-secret"
Line = dict[str, Any] | str | Reply


class Server(ThreadingHTTPServer):
    """Answers each request with the next of ``script``: (status, body, seconds to wait before)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script: list[tuple[int, bytes, float]] = []
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.wake = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def say(self, message: dict[str, Any]) -> None:
        """Adds a completion with this message to the script."""
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **message}}
        body = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        self.script.append((200, json.dumps(body).encode(), 0.0))


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies.append({"path": self.path, **json.loads(body)})
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        status, answer, wait = self.server.script.pop(0)
        if wait:
            self.server.wake.wait(wait)
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
        except OSError:  # the client had enough of waiting
            return

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.wake.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def connect(server: Server) -> Iterator[Callable[..., OpenAIModel]]:
    models: list[OpenAIModel] = []

    def connect(**options: Any) -> OpenAIModel:
        settings = {"url": server.url, "api_key": KEY, "retries": 0, "timeout_s": 5.0, **options}
        models.append(OpenAIModel(settings.pop("url"), "tiny", **settings))
        return models[-1]

    yield connect
    for model in models:
        model.close()


@pytest.fixture(params=["openai", "fake"])
def scripted(
    request: pytest.FixtureRequest, server: Server, connect: Callable[..., OpenAIModel]
) -> Callable[[list[Line]], LanguageModel]:
    """Makes a model that says these lines; the real client over HTTP, and the fake."""

    def make(lines: list[Line]) -> LanguageModel:
        if request.param == "fake":
            return FakeModel(lines, name="tiny")
        for line in lines:
            if isinstance(line, Reply):
                server.say({"content": line.content, "reasoning": line.reasoning})
            else:
                server.say({"content": line if isinstance(line, str) else json.dumps(line)})
        return connect()

    return make
