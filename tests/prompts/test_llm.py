"""Language models: one contract for the real client (over loopback HTTP) and the fake; what goes wrong."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
from pydantic import BaseModel, Field

from dsmoe_core.errors import LanguageModelError
from prompts.llm import FakeModel, LanguageModel, Message, OpenAIModel, Reply, ask

from .conftest import KEY, Line, Server


class Colour(BaseModel):
    name: str = Field(min_length=2)
    brightness: int


RED = {"name": "red", "brightness": 3}
ASKED = [Message("system", "be brief"), Message("user", "which colour?")]
Scripted = Callable[[list[Line]], LanguageModel]


@pytest.mark.parametrize(
    "line",
    [
        RED,
        '```json\n{"name": "red", "brightness": 3}\n```',
        'Let me think {about} it.</think>\n{"name": "red", "brightness": 3}',
        Reply('{"name": "red", "brightness": 3}', "I thought"),
    ],
)
def test_gives_the_shape_that_was_asked_for(scripted: Scripted, line: Line) -> None:
    model = scripted([line])
    assert model.name == "tiny"
    assert ask(model, ASKED, Colour) == Colour(name="red", brightness=3)


def test_reasoning_is_told_apart(scripted: Scripted) -> None:
    assert scripted([Reply("yes", "because")]).reply(ASKED, Colour) == Reply("yes", "because")


@pytest.mark.parametrize("nonsense", ["no idea", "{", '{"name": "r", "brightness": 3}', "[]", ""])
def test_nonsense_is_sent_back_and_asked_again(scripted: Scripted, nonsense: str) -> None:
    assert ask(scripted([nonsense, RED]), ASKED, Colour).name == "red"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("no idea", "holds no JSON object"),
        ({"name": "red", "brightness": "very"}, "brightness: Input should be a valid integer"),
        (Reply(None, "hm " * 10), "the answer was empty after 30 characters of reasoning"),
    ],
)
def test_it_gives_up_after_so_many_attempts(scripted: Scripted, line: Line, problem: str) -> None:
    with pytest.raises(LanguageModelError, match=f"tiny gave no valid answer in 3 attempts; .*{problem}"):
        ask(scripted([line] * 3), ASKED, Colour, attempts=3)


def test_what_was_wrong_is_told_to_the_model() -> None:
    model = FakeModel([{"name": "red"}, RED])
    ask(model, ASKED, Colour)
    *before, said, correction = model.asked[1]
    assert before == ASKED
    assert said == Message("assistant", '{"name": "red"}')
    assert "brightness: Field required" in correction.text


def test_a_fake_out_of_lines_refuses_and_raises_what_it_was_told() -> None:
    with pytest.raises(LanguageModelError, match="nothing more to say"):
        FakeModel([]).reply(ASKED, Colour)
    with pytest.raises(LanguageModelError, match="down"):
        FakeModel([LanguageModelError("down", "Wait.")]).reply(ASKED, Colour)


def test_what_is_sent(server: Server, connect: Callable[..., OpenAIModel]) -> None:
    server.say({"content": "{}"})
    connect(max_tokens=99, thinking_tokens=7).reply(ASKED, Colour)
    (body,) = server.bodies
    assert body["path"] == "/v1/chat/completions"
    assert body["model"] == "tiny"
    assert body["messages"][1] == {"role": "user", "content": "which colour?"}
    assert body["max_tokens"] == 99
    assert body["thinking_token_budget"] == 7
    assert body["response_format"]["type"] == "json_schema"
    assert body["response_format"]["json_schema"]["schema"] == Colour.model_json_schema()
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


def test_older_servers_name_their_reasoning_otherwise(
    server: Server, connect: Callable[..., OpenAIModel]
) -> None:
    server.say({"content": None, "reasoning_content": "because"})
    assert connect().reply(ASKED, Colour) == Reply(None, "because")


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (
            404,
            b'{"message": "The model tiny does not exist"}',
            r"refused model 'tiny' \(status 404\): .*exist",
        ),
        (400, b'{"error": {"message": "bad schema"}}', r"status 400\): .*bad schema"),
        (401, b'{"error": {"message": "sk-very-secret is wrong"}}', r"refused the API key \(status 401\)"),
        (500, b"sk-very-secret exploded", r"status 500\)"),
        (200, b"<html>welcome</html>", "answered"),
        (200, b'{"choices": []}', "without any message"),
        (200, b'{"choices": [{"index": 0}]}', "without any message"),
        (200, b"{", "answered what is no reply"),
        (200, b"[]", "answered"),
    ],
)
def test_a_server_that_refuses_or_babbles(
    server: Server,
    connect: Callable[..., OpenAIModel],
    status: int,
    body: bytes,
    message: str,
) -> None:
    server.script.append((status, body, 0.0))
    with pytest.raises(LanguageModelError, match=message) as caught:
        connect().reply(ASKED, Colour)
    assert KEY not in str(caught.value)
    assert server.url in str(caught.value)


def test_an_overloaded_server_is_asked_again(server: Server, connect: Callable[..., OpenAIModel]) -> None:
    server.script.append((503, b"{}", 0.0))
    server.say({"content": "yes"})
    assert connect(retries=1).reply(ASKED, Colour).content == "yes"


def test_a_slow_server_is_given_up(server: Server, connect: Callable[..., OpenAIModel]) -> None:
    server.script.append((200, b"{}", 30.0))
    with pytest.raises(LanguageModelError, match=r"did not answer within 0.2 s. Wait until"):
        connect(timeout_s=0.2).reply(ASKED, Colour)


def test_no_server_at_all(connect: Callable[..., OpenAIModel], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # loopback is reached without a proxy
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        with pytest.raises(LanguageModelError, match=rf"127.0.0.1:{port}/v1 cannot be reached"):
            connect(url=f"http://127.0.0.1:{port}/v1").reply(ASKED, Colour)


@pytest.mark.parametrize("url", ["localhost:8000", "", "ftp://127.0.0.1/v1", "http:///v1"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(LanguageModelError, match=r"expected http://HOST:PORT/v1"):
        OpenAIModel(url, "tiny")


def test_an_address_with_a_login_is_refused_without_showing_it() -> None:
    with pytest.raises(LanguageModelError, match="with a login in it") as caught:
        OpenAIModel("http://ada:hidden@127.0.0.1:1/v1", "tiny")
    assert "hidden" not in str(caught.value)


def test_the_log_never_shows_the_key(
    server: Server, connect: Callable[..., OpenAIModel], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    server.say({"content": "yes"})
    connect().reply(ASKED, Colour)
    assert caplog.records
    assert KEY not in caplog.text
