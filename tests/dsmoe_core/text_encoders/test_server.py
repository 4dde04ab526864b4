"""Embeddings over HTTP: requests, invalid responses, errors, and secrecy of the API key."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from embeddings_server import WIDTH, EmbeddingsServer, embedding, embeddings_reply
from openai_server import Reply

from dsmoe_core.errors import LanguageModelError, PrerequisiteError
from dsmoe_core.text_encoders.server import ServerEncoder

KEY = "sk-very-secret"
TEXTS = ["a gap", "a spur", "a scratch"]
Connect = Callable[..., ServerEncoder]


@pytest.fixture
def connect(server: EmbeddingsServer) -> Iterator[Connect]:
    encoders: list[ServerEncoder] = []

    def connect(**options: Any) -> ServerEncoder:
        settings = {"url": server.url, "api_key": KEY, "retries": 0, "timeout_s": 5.0, **options}
        encoders.append(ServerEncoder(settings.pop("url"), "tiny", **settings))
        return encoders[-1]

    yield connect
    for encoder in encoders:
        encoder.close()


def changed(change: Callable[[list[dict[str, Any]]], Any]) -> Callable[[dict[str, Any]], Reply]:
    """A valid response with changed rows, except for the request that determines the width."""

    def reply(body: dict[str, Any]) -> Reply:
        status, response = embeddings_reply(body)
        if body["input"] == ["width"]:
            return status, response
        return status, {**response, "data": change(response["data"])}

    return reply


def test_requests(server: EmbeddingsServer, connect: Connect) -> None:
    encoder = connect(batch=2)
    assert server.bodies == []  # no request before the first use
    assert encoder.width == WIDTH
    encoder.encode(TEXTS)
    inputs = [body["input"] for body in server.bodies]
    assert inputs == [["width"], TEXTS[:2], TEXTS[2:]]
    assert {body["path"] for body in server.bodies} == {"/v1/embeddings"}
    assert {(body["model"], body["encoding_format"]) for body in server.bodies} == {("tiny", "float")}
    assert {headers["authorization"] for headers in server.headers} == {f"Bearer {KEY}"}


def test_rows_are_sorted_by_index(server: EmbeddingsServer, connect: Connect) -> None:
    vectors = torch.tensor([embedding(text) for text in TEXTS])
    unit = vectors / vectors.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(connect().encode(TEXTS), unit)


@pytest.mark.parametrize(
    ("change", "value"),
    [
        (lambda rows: rows[1:], "2 vectors"),
        (lambda rows: [*rows, rows[0]], "4 vectors"),
        (lambda rows: [{**row, "index": 0} for row in rows], "3 texts"),
        (lambda rows: [{**row, "embedding": row["embedding"][:5]} for row in rows], "5; expected 24"),
        (lambda rows: [{**rows[0], "embedding": [1.0]}, *rows[1:]], r"widths \[1, 24\]"),
        (lambda rows: [{**row, "embedding": []} for row in rows], r"widths \[0\]"),
        (lambda rows: [{**row, "embedding": [0.0] * WIDTH} for row in rows], "a vector of zeros"),
        (lambda rows: [{**row, "embedding": [float("nan")] * WIDTH} for row in rows], "no embeddings"),
        (lambda rows: [{**row, "embedding": "AAAA"} for row in rows], "no embeddings"),
        (lambda rows: None, "no embeddings"),
    ],
)
def test_response_that_does_not_fit_is_refused(
    server: EmbeddingsServer, connect: Connect, change: Callable[..., Any], value: str
) -> None:
    server.reply = changed(change)
    with pytest.raises(LanguageModelError, match=value) as caught:
        connect().encode(TEXTS)
    assert server.url in str(caught.value)


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        (
            (404, {"message": "The model tiny does not exist"}),
            r"'tiny' \(status 404\): .*exist",
        ),
        ((400, {"error": {"message": f"{KEY} cannot embed"}}), r"status 400\): .*\*\*\* cannot embed"),
        ((401, {"error": {"message": f"{KEY} is wrong"}}), r"\(status 401\)"),
        ((500, f"{KEY} exploded".encode()), r"status 500\)"),
        ((200, b"<html>welcome</html>"), r"detector\.text_encoder\.url"),
        ((200, b""), "no embeddings"),
        ((200, f'["{KEY}"]'.encode()), "no embeddings"),
    ],
)
def test_error_responses_are_reported_without_the_key(
    server: EmbeddingsServer, connect: Connect, reply: Reply, value: str
) -> None:
    server.reply = lambda body: reply
    with pytest.raises(LanguageModelError, match=value) as caught:
        connect().encode(TEXTS)
    chain = f"{caught.value} {caught.value.__cause__} {caught.value.__context__}"
    assert KEY not in str(caught.value)
    assert caught.value.__suppress_context__ or KEY not in chain


def test_overload_is_retried(server: EmbeddingsServer, connect: Connect) -> None:
    server.reply = lambda body: (503, {}) if len(server.bodies) == 1 else embeddings_reply(body)
    assert connect(retries=1).width == WIDTH


def test_slow_server_times_out(server: EmbeddingsServer, connect: Connect) -> None:
    def late(body: dict[str, Any]) -> Reply:
        time.sleep(0.6)
        return embeddings_reply(body)

    server.reply = late
    with pytest.raises(LanguageModelError, match=r"0\.2 s"):
        connect(timeout_s=0.2).encode(TEXTS)


def test_server_that_does_not_run(connect: Connect) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(LanguageModelError, match=url):
            connect(url=url).encode(TEXTS)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/v1", "http://ada:hidden@127.0.0.1:1/v1"])
def test_invalid_url_and_login_in_url_are_refused(url: str) -> None:
    with pytest.raises(LanguageModelError) as caught:
        ServerEncoder(url, "tiny").encode(TEXTS)
    assert "hidden" not in str(caught.value)


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(PrerequisiteError, match=r"dsmoe\[llm\]"):
        ServerEncoder("http://127.0.0.1:1/v1", "tiny").encode(TEXTS)


def test_log_does_not_contain_the_key(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    encoder = connect()
    encoder.encode(TEXTS)
    assert caplog.records
    assert KEY not in caplog.text
    assert KEY not in encoder.name
