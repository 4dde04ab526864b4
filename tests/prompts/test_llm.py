"""Language models: one contract for the real client (over loopback HTTP) and the fake, and server errors."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from itertools import repeat

import pytest
from openai_server import stream_body
from pydantic import BaseModel, Field

from dsmoe_core.errors import LanguageModelError
from prompts.llm import CountingModel, FakeModel, Message, OpenAIModel, Reply, Usage, generate_structured

from .conftest import KEY, ScriptedServer, ScriptEntry


class Colour(BaseModel):
    name: str = Field(min_length=2)
    brightness: int


RED = {"name": "red", "brightness": 3}
MESSAGES = [Message("system", "be brief"), Message("user", "which colour?")]
Scripted = Callable[..., CountingModel]
Connect = Callable[..., OpenAIModel]


@pytest.mark.parametrize(
    "entry",
    [
        RED,
        '```json\n{"name": "red", "brightness": 3}\n```',
        'Let me think {about} it.</think>\n{"name": "red", "brightness": 3}',
        Reply('{"name": "red", "brightness": 3}', "I thought"),
    ],
)
def test_answer_is_parsed_without_reasoning_and_fences(scripted: Scripted, entry: ScriptEntry) -> None:
    model = scripted([entry])
    assert model.name == "tiny"
    assert generate_structured(model, MESSAGES, Colour) == Colour(name="red", brightness=3)


def test_reasoning_is_separate_from_content(scripted: Scripted) -> None:
    assert scripted([Reply("yes", "because")]).reply(MESSAGES, Colour) == Reply("yes", "because")


def test_tokens_are_counted_and_reported(scripted: Scripted) -> None:
    reported: list[tuple[int, bool]] = []
    model = scripted(
        [Reply('{"name": "red", "brightness": 3}', "because I say"), RED],
        on_token=lambda tokens, reasoning: reported.append((tokens, reasoning)),
    )
    assert model.usage == Usage()
    generate_structured(model, MESSAGES, Colour)
    assert reported == [(1, True), (2, True), (3, True), (4, False), (5, False), (6, False), (7, False)]
    assert (model.usage.replies, model.usage.completion_tokens) == (1, 7)
    generate_structured(model, MESSAGES, Colour)
    assert (model.usage.replies, model.usage.completion_tokens) == (2, 11)
    assert model.usage.seconds >= 0


def test_failed_request_is_not_counted(scripted: Scripted, server: ScriptedServer) -> None:
    model = scripted([])
    server.script.append((400, b"{}", 0.0))
    with pytest.raises(LanguageModelError):
        model.reply(MESSAGES, Colour)
    assert model.usage == Usage()


@pytest.mark.parametrize("invalid", ["no idea", "{", '{"name": "r", "brightness": 3}', "[]", ""])
def test_request_is_repeated_after_an_invalid_reply(scripted: Scripted, invalid: str) -> None:
    assert generate_structured(scripted([invalid, RED]), MESSAGES, Colour).name == "red"


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("no idea", "JSON"),
        ({"name": "red", "brightness": "very"}, "brightness"),
        (Reply(None, "hm " * 10), "empty .* 30 characters"),
        (Reply(None, "hm " * 10, truncated=True), "30 characters .*truncated"),
        (Reply('{"name": "re', None, truncated=True), "JSON.*truncated"),
        (Reply('{"name": {}', None, truncated=True), "truncated"),
    ],
)
def test_error_after_the_last_attempt_names_the_last_problem(
    scripted: Scripted, entry: ScriptEntry, problem: str
) -> None:
    with pytest.raises(LanguageModelError, match=f"tiny .* 3 attempts.*{problem}"):
        generate_structured(scripted([entry] * 3), MESSAGES, Colour, attempts=3)


def test_second_attempt_contains_the_invalid_reply_and_its_errors() -> None:
    model = FakeModel([{"name": "red"}, RED])
    generate_structured(model, MESSAGES, Colour)
    *before, reply, correction = model.requests[1]
    assert before == MESSAGES
    assert reply == Message("assistant", '{"name": "red"}')
    assert "brightness" in correction.text


def test_fake_raises_scripted_errors_and_an_error_at_the_end_of_its_script() -> None:
    with pytest.raises(LanguageModelError):
        FakeModel([]).reply(MESSAGES, Colour)
    with pytest.raises(LanguageModelError, match="down"):
        FakeModel([LanguageModelError("down", "Wait.")]).reply(MESSAGES, Colour)


def test_request_body(server: ScriptedServer, connect: Connect) -> None:
    server.add_message({"content": "{}"})
    model = connect(max_tokens=99, thinking_tokens=7)
    model.reply(MESSAGES, Colour)
    assert model.settings == {"max_tokens": 99, "thinking_token_budget": 7}
    (body,) = server.bodies
    assert body["path"] == "/v1/chat/completions"
    assert body["model"] == "tiny"
    assert body["messages"][1] == {"role": "user", "content": "which colour?"}
    assert body["max_tokens"] == 99
    assert body["thinking_token_budget"] == 7
    assert body["response_format"]["type"] == "json_schema"
    assert body["response_format"]["json_schema"]["schema"] == Colour.model_json_schema()
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


def test_reply_with_reasoning_only_is_requested_again_without_reasoning(
    server: ScriptedServer, connect: Connect
) -> None:
    server.add_message({"reasoning": "hm hm"})
    server.add_message({"content": "{}"})
    model = connect(thinking_tokens=7)
    assert model.reply(MESSAGES, Colour) == Reply("{}", None)
    assert [body["thinking_token_budget"] for body in server.bodies] == [7, 0]
    assert model.usage.replies == 2
    server.add_message({"reasoning": "hm hm"})
    assert connect().reply(MESSAGES, Colour).content is None, "not without a thinking budget"
    assert len(server.bodies) == 3


def test_reasoning_content_field_of_older_servers(server: ScriptedServer, connect: Connect) -> None:
    server.add_message({"content": None, "reasoning_content": "because"})
    assert connect().reply(MESSAGES, Colour) == Reply(None, "because")


@pytest.mark.parametrize(
    ("status", "body", "values"),
    [
        (404, b'{"message": "The model tiny does not exist"}', r"'tiny'.* 404\b.*does not exist"),
        (400, b'{"error": {"message": "bad schema"}}', r" 400\b.*bad schema"),
        (401, b'{"error": {"message": "sk-very-secret is wrong"}}', r" 401\b"),
        (500, b"sk-very-secret exploded", r" 500\b"),
        (200, b"<html>welcome</html>", "/v1"),
        (200, b'{"choices": []}', "/v1"),
        (200, b'{"choices": [{"index": 0}]}', "/v1"),
        (200, b"{", "/v1"),
        (200, b"data: {\n\n", "/v1"),
        (200, b'data: {"error": {"message": "sk-very-secret out of memory"}}\n\n', "out of memory"),
        (200, b"data: [DONE]\n\n", "/v1"),
        (200, b"[]", "/v1"),
    ],
)
def test_refusal_or_malformed_response_is_a_clear_error_without_the_key(
    server: ScriptedServer, connect: Connect, status: int, body: bytes, values: str
) -> None:
    server.script.append((status, body, 0.0))
    with pytest.raises(LanguageModelError, match=values) as caught:
        connect().reply(MESSAGES, Colour)
    assert KEY not in str(caught.value)
    assert server.url in str(caught.value)


def test_request_is_retried_if_the_server_is_overloaded(server: ScriptedServer, connect: Connect) -> None:
    server.script.append((503, b"{}", 0.0))
    server.add_message({"content": "yes"})
    assert connect(retries=1).reply(MESSAGES, Colour).content == "yes"


def test_slow_server_times_out(server: ScriptedServer, connect: Connect) -> None:
    server.script.append((200, b"{}", 30.0))
    with pytest.raises(LanguageModelError, match=r"0\.2 s"):
        connect(timeout_s=0.2).reply(MESSAGES, Colour)


def test_token_counts_of_the_server_are_used(server: ScriptedServer, connect: Connect) -> None:
    server.add_message({"content": "one two"}, usage=17)
    model = connect()
    model.reply(MESSAGES, Colour)
    assert (model.usage.prompt_tokens, model.usage.completion_tokens) == (5, 17)


@pytest.mark.parametrize("broken", ["connection", "no end"])
def test_reply_that_breaks_off_is_an_error_and_not_retried(
    server: ScriptedServer, connect: Connect, broken: str
) -> None:
    part = stream_body({"content": '{"name": "re'}, finish=None)
    server.script.append((200, iter([part]) if broken == "connection" else part, 0.0))
    with pytest.raises(LanguageModelError, match="/v1"):
        connect(retries=2).reply(MESSAGES, Colour)
    assert len(server.bodies) == 1


def test_stream_that_stops_or_never_ends_is_an_error(server: ScriptedServer, connect: Connect) -> None:
    part = stream_body({"reasoning": "well"}, finish=None)

    def silent() -> Iterator[bytes]:
        yield part
        server.wake.wait(30)

    server.script.append((200, silent(), 0.0))
    with pytest.raises(LanguageModelError, match=r"0\.2 s"):
        connect(timeout_s=0.2).reply(MESSAGES, Colour)
    server.script.append((200, repeat(part), 0.0))
    with pytest.raises(LanguageModelError, match=r"0\.1 s \(\d+ tokens\)"):
        connect(limit_s=0.1).reply(MESSAGES, Colour)


def test_models_of_the_server(server: ScriptedServer, connect: Connect) -> None:
    server.models = ["tiny", "large"]
    assert connect().served() == ["tiny", "large"]


def test_usage_adds_up_and_has_all_counts_in_its_text() -> None:
    usage = Usage(1, 0, 1200, 300, 10.0) + Usage(cached=2)
    assert usage == Usage(1, 2, 1200, 300, 10.0)
    assert usage.tokens == 1500
    assert all(count in str(usage) for count in ("1 reply", "2 ", "1,200", "300", "10.0 s", "30.0"))
    assert str(Usage(cached=2)).startswith("0 replies, 2 ")


def test_unreachable_server_is_an_error(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # must not be used for loopback
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        with pytest.raises(LanguageModelError, match=rf"127\.0\.0\.1:{port}/v1"):
            connect(url=f"http://127.0.0.1:{port}/v1").reply(MESSAGES, Colour)


@pytest.mark.parametrize("url", ["localhost:8000", "", "ftp://127.0.0.1/v1", "http:///v1"])
def test_invalid_url_is_refused(url: str) -> None:
    with pytest.raises(LanguageModelError, match="http://HOST:PORT/v1"):
        OpenAIModel(url, "tiny")


def test_url_with_a_password_is_refused_without_showing_it() -> None:
    with pytest.raises(LanguageModelError) as caught:
        OpenAIModel("http://ada:hidden@127.0.0.1:1/v1", "tiny")
    assert "hidden" not in str(caught.value)


def test_log_never_contains_the_key(
    server: ScriptedServer, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    server.add_message({"content": "yes"})
    connect().reply(MESSAGES, Colour)
    assert caplog.records
    assert KEY not in caplog.text
