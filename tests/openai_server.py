"""OpenAI-compatible server on loopback whose replies are given by the test."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

Reply = tuple[int, Any] | tuple[int, Any, dict[str, str]]
"""Status, body and headers. The body: bytes, an iterator of bytes after which the connection breaks, or a
value for JSON. The default content type is that of the body."""


def stream_body(message: dict[str, Any], *, finish: str | None = "stop", usage: int | None = None) -> bytes:
    """Body of a streamed completion, with one chunk per word of reasoning and content.

    Args:
        finish: finish reason; None: the stream has no end.
        usage: number of completion tokens that the server reports; None: it reports none.
    """
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    for field in ("reasoning", "reasoning_content", "content"):
        deltas += [{field: word} for word in re.findall(r"\S+\s*", message.get(field) or "")]
    head = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m"}
    events: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
    ]
    if finish:
        events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    if usage is not None:
        events.append(
            {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": usage, "total_tokens": 0}}
        )
    lines = [json.dumps(head | event) for event in events] + (["[DONE]"] if finish else [])
    return "".join(f"data: {event}\n\n" for event in lines).encode()


class OpenAIServer(ThreadingHTTPServer):
    """Runs inside a ``with``; ``reply`` may be replaced.

    Attributes:
        bodies, headers: of the requests so far.
    """

    daemon_threads = True

    def __init__(self, reply: Callable[[dict[str, Any]], Reply]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply = reply
        self.models: list[str] | Reply = ["tiny"]
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


def _content_type(parts: Iterator[bytes] | None, content: bytes) -> str:
    if parts or content.startswith(b"data:"):
        return "text/event-stream"
    return "text/html" if content.startswith(b"<") else "application/json"


class _Handler(BaseHTTPRequestHandler):
    server: OpenAIServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append({"path": self.path, **body})
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        self._send(*self.server.reply(body))

    def do_GET(self) -> None:
        models = self.server.models
        if isinstance(models, tuple):
            self._send(*models)
        else:
            data = [{"id": name, "object": "model"} for name in models]
            self._send(200, {"object": "list", "data": data})

    def _send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        parts = body if isinstance(body, Iterator) else None
        content = b"" if parts else body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            self.send_response(status)
            for name, value in {"Content-Type": _content_type(parts, content), **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(10**9 if parts else len(content)))
            self.end_headers()
            for part in parts or [content]:
                self.wfile.write(part)
                self.wfile.flush()
        except OSError:  # the client closed the connection
            return

    def log_message(self, *_: object) -> None:
        return
