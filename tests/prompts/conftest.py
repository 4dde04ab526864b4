"""OpenAI-compatible server with scripted replies, and the real client and the fake on the same script."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from openai_server import OpenAIServer, stream_body

from prompts.llm import CountingModel, FakeModel, OpenAIModel, Reply, TokenProgress

KEY = "sk-very-secret"
ScriptEntry = dict[str, Any] | str | Reply


class ScriptedServer(OpenAIServer):
    """Answers each request with the next entry of ``script``: (status, body, seconds of delay[, headers])."""

    def __init__(self) -> None:
        super().__init__(self._next)
        self.script: list[tuple[int, Any, float] | tuple[int, Any, float, dict[str, str]]] = []
        self.wake = threading.Event()

    def add_message(self, message: dict[str, Any], **options: Any) -> None:
        """Add a streamed completion with this message to the script."""
        self.script.append((200, stream_body(message, **options), 0.0))

    def _next(self, _body: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        status, body, delay, *headers = self.script.pop(0)
        self.wake.wait(delay)
        return status, body, headers[0] if headers else {}


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server
        server.wake.set()


@pytest.fixture
def connect(server: ScriptedServer) -> Iterator[Callable[..., OpenAIModel]]:
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
    request: pytest.FixtureRequest, server: ScriptedServer, connect: Callable[..., OpenAIModel]
) -> Callable[..., CountingModel]:
    """Makes a model with scripted replies: the real client over HTTP, and the fake."""

    def make(script: list[ScriptEntry], on_token: TokenProgress | None = None) -> CountingModel:
        if request.param == "fake":
            return FakeModel(script, name="tiny", on_token=on_token)
        for entry in script:
            if isinstance(entry, Reply):
                finish = "length" if entry.truncated else "stop"
                server.add_message({"content": entry.content, "reasoning": entry.reasoning}, finish=finish)
            else:
                content = entry if isinstance(entry, str) else json.dumps(entry)
                server.add_message({"content": content})
        return connect(on_token=on_token)

    return make
