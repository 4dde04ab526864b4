"""Embeddings over HTTP: what is sent, what is checked, and that the key is never shown."""

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
    made: list[ServerEncoder] = []

    def connect(**options: Any) -> ServerEncoder:
        settings = {"url": server.url, "api_key": KEY, "retries": 0, "timeout_s": 5.0, **options}
        made.append(ServerEncoder(settings.pop("url"), "tiny", **settings))
        return made[-1]

    yield connect
    for encoder in made:
        encoder.close()


def changed(change: Callable[[list[dict[str, Any]]], Any]) -> Callable[[dict[str, Any]], Reply]:
    """A good answer but for what ``change`` does to its rows; the word that tells the width is spared."""

    def reply(body: dict[str, Any]) -> Reply:
        status, said = embeddings_reply(body)
        return status, said if body["input"] == ["width"] else {**said, "data": change(said["data"])}

    return reply


def test_what_is_sent(server: EmbeddingsServer, connect: Connect) -> None:
    encoder = connect(batch=2)
    assert server.bodies == []  # nothing is asked before it is needed
    assert encoder.width == WIDTH
    encoder.encode(TEXTS)
    asked = [body["input"] for body in server.bodies]
    assert asked == [["width"], TEXTS[:2], TEXTS[2:]]
    assert {body["path"] for body in server.bodies} == {"/v1/embeddings"}
    assert {(body["model"], body["encoding_format"]) for body in server.bodies} == {("tiny", "float")}
    assert {headers["authorization"] for headers in server.headers} == {f"Bearer {KEY}"}


def test_rows_are_put_in_the_order_of_their_index(server: EmbeddingsServer, connect: Connect) -> None:
    vectors = torch.tensor([embedding(text) for text in TEXTS])
    unit = vectors / vectors.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(connect().encode(TEXTS), unit)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[1:], "with 2 vectors; expected one for each of 3 texts"),
        (lambda rows: [*rows, rows[0]], "with 4 vectors; expected one for each of 3 texts"),
        (lambda rows: [{**row, "index": 0} for row in rows], "expected one for each of 3 texts"),
        (lambda rows: [{**row, "embedding": row["embedding"][:5]} for row in rows], "5 wide; expected 24"),
        (lambda rows: [{**rows[0], "embedding": [1.0]}, *rows[1:]], r"widths \[1, 24\]; expected one width"),
        (lambda rows: [{**row, "embedding": []} for row in rows], r"widths \[0\]"),
        (lambda rows: [{**row, "embedding": [0.0] * WIDTH} for row in rows], "a vector of zeros"),
        (lambda rows: [{**row, "embedding": [float("nan")] * WIDTH} for row in rows], "no embeddings"),
        (lambda rows: [{**row, "embedding": "AAAA"} for row in rows], "no embeddings"),
        (lambda rows: None, "no embeddings"),
    ],
)
def test_an_answer_that_does_not_fit(
    server: EmbeddingsServer, connect: Connect, change: Callable[..., Any], message: str
) -> None:
    server.reply = changed(change)
    with pytest.raises(LanguageModelError, match=message) as caught:
        connect().encode(TEXTS)
    assert server.url in str(caught.value)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (
            (404, {"message": "The model tiny does not exist"}),
            r"refused model 'tiny' \(status 404\): .*exist",
        ),
        ((400, {"error": {"message": f"{KEY} cannot embed"}}), r"status 400\): .*\*\*\* cannot embed"),
        ((401, {"error": {"message": f"{KEY} is wrong"}}), r"refused the API key \(status 401\)"),
        ((500, f"{KEY} exploded".encode()), r"status 500\)"),
        ((200, b"<html>welcome</html>"), "no embeddings"),
        ((200, b""), "no embeddings"),
        ((200, f'["{KEY}"]'.encode()), "no embeddings"),
    ],
)
def test_a_server_that_refuses_or_babbles(
    server: EmbeddingsServer, connect: Connect, reply: Reply, message: str
) -> None:
    server.reply = lambda body: reply
    with pytest.raises(LanguageModelError, match=message) as caught:
        connect().encode(TEXTS)
    shown = f"{caught.value} {caught.value.__cause__} {caught.value.__context__}"
    assert KEY not in str(caught.value)
    assert caught.value.__suppress_context__ or KEY not in shown


def test_an_overloaded_server_is_asked_again(server: EmbeddingsServer, connect: Connect) -> None:
    server.reply = lambda body: (503, {}) if len(server.bodies) == 1 else embeddings_reply(body)
    assert connect(retries=1).width == WIDTH


def test_a_slow_server_is_given_up(server: EmbeddingsServer, connect: Connect) -> None:
    def late(body: dict[str, Any]) -> Reply:
        time.sleep(0.6)
        return embeddings_reply(body)

    server.reply = late
    with pytest.raises(LanguageModelError, match=r"did not answer within 0.2 s. Wait until"):
        connect(timeout_s=0.2).encode(TEXTS)


def test_no_server_at_all(connect: Connect) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(LanguageModelError, match=f"{url} cannot be reached.*Start the server"):
            connect(url=url).encode(TEXTS)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/v1", "http://ada:hidden@127.0.0.1:1/v1"])
def test_an_address_that_is_none_or_holds_a_login(url: str) -> None:
    with pytest.raises(LanguageModelError, match="the server's address") as caught:
        ServerEncoder(url, "tiny").encode(TEXTS)
    assert "hidden" not in str(caught.value)


def test_without_the_extra_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(PrerequisiteError, match=r"pip install 'dsmoe\[llm\]'"):
        ServerEncoder("http://127.0.0.1:1/v1", "tiny").encode(TEXTS)


def test_the_log_never_shows_the_key(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    encoder = connect()
    encoder.encode(TEXTS)
    assert caplog.records
    assert KEY not in caplog.text
    assert KEY not in encoder.name
