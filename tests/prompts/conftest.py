"""A small server that speaks the OpenAI protocol, and both kinds of model over the same script."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from openai_server import OpenAIServer, told_in_pieces

from prompts.llm import CountingModel, FakeModel, OpenAIModel, Reply, TokenProgress

KEY = "sk-very-secret"
Line = dict[str, Any] | str | Reply


class Server(OpenAIServer):
    """Answers each request with the next of ``script``: (status, body, seconds to wait before)."""

    def __init__(self) -> None:
        super().__init__(self._next)
        self.script: list[tuple[int, Any, float]] = []
        self.wake = threading.Event()

    def status(self, message: dict[str, Any], **options: Any) -> None:
        """Adds a completion with this message to the script."""
        self.script.append((200, told_in_pieces(message, **options), 0.0))

    def _next(self, _body: dict[str, Any]) -> tuple[int, Any]:
        status, said, wait = self.script.pop(0)
        self.wake.wait(wait)
        return status, said


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server
        server.wake.set()


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
) -> Callable[..., CountingModel]:
    """Makes a model that says these lines; the real client over HTTP, and the fake."""

    def make(lines: list[Line], on_token: TokenProgress | None = None) -> CountingModel:
        if request.param == "fake":
            return FakeModel(lines, name="tiny", on_token=on_token)
        for line in lines:
            if isinstance(line, Reply):
                finish = "length" if line.truncated else "stop"
                server.status({"content": line.content, "reasoning": line.reasoning}, finish=finish)
            else:
                server.status({"content": line if isinstance(line, str) else json.dumps(line)})
        return connect(on_token=on_token)

    return make
