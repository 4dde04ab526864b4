"""Language models: one contract for the real client (over loopback HTTP) and the fake; what goes wrong."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from itertools import repeat

import pytest
from openai_server import told_in_pieces
from pydantic import BaseModel, Field

from dsmoe_core.errors import LanguageModelError
from prompts.llm import CountingModel, FakeModel, Message, OpenAIModel, Reply, Usage, generate_structured

from .conftest import KEY, Line, Server


class Colour(BaseModel):
    name: str = Field(min_length=2)
    brightness: int


RED = {"name": "red", "brightness": 3}
ASKED = [Message("system", "be brief"), Message("user", "which colour?")]
Scripted = Callable[..., CountingModel]


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
    assert generate_structured(model, ASKED, Colour) == Colour(name="red", brightness=3)


def test_reasoning_is_told_apart(scripted: Scripted) -> None:
    assert scripted([Reply("yes", "because")]).reply(ASKED, Colour) == Reply("yes", "because")


def test_tokens_are_counted_and_heard(scripted: Scripted) -> None:
    on_token: list[tuple[int, bool]] = []
    model = scripted(
        [Reply('{"name": "red", "brightness": 3}', "because I say"), RED],
        on_token=lambda tokens, thinks: on_token.append((tokens, thinks)),
    )
    assert model.usage == Usage()
    generate_structured(model, ASKED, Colour)
    assert on_token == [(1, True), (2, True), (3, True), (4, False), (5, False), (6, False), (7, False)]
    assert (model.usage.replies, model.usage.completion_tokens) == (1, 7)
    generate_structured(model, ASKED, Colour)
    assert (model.usage.replies, model.usage.completion_tokens) == (2, 11)
    assert model.usage.seconds >= 0


def test_a_failure_is_not_counted(scripted: Scripted, server: Server) -> None:
    model = scripted([])
    server.script.append((400, b"{}", 0.0))
    with pytest.raises(LanguageModelError):
        model.reply(ASKED, Colour)
    assert model.usage == Usage()


@pytest.mark.parametrize("nonsense", ["no idea", "{", '{"name": "r", "brightness": 3}', "[]", ""])
def test_nonsense_is_sent_back_and_asked_again(scripted: Scripted, nonsense: str) -> None:
    assert generate_structured(scripted([nonsense, RED]), ASKED, Colour).name == "red"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("no idea", "holds no JSON object"),
        ({"name": "red", "brightness": "very"}, "brightness: Input should be a valid integer"),
        (Reply(None, "hm " * 10), "the answer was empty after 30 characters of reasoning"),
        (Reply(None, "hm " * 10, truncated=True), "of reasoning, cut off at the most tokens of a reply"),
        (Reply('{"name": "re', None, truncated=True), "holds no JSON object, cut off"),
        (Reply('{"name": {}', None, truncated=True), r"brightness: Field required|EOF.* \(it was cut off"),
    ],
)
def test_it_gives_up_after_so_many_attempts(scripted: Scripted, line: Line, problem: str) -> None:
    with pytest.raises(LanguageModelError, match=f"tiny gave no valid answer in 3 attempts; .*{problem}"):
        generate_structured(scripted([line] * 3), ASKED, Colour, attempts=3)


def test_what_was_wrong_is_told_to_the_model() -> None:
    model = FakeModel([{"name": "red"}, RED])
    generate_structured(model, ASKED, Colour)
    *before, said, correction = model.requests[1]
    assert before == ASKED
    assert said == Message("assistant", '{"name": "red"}')
    assert "brightness: Field required" in correction.text


def test_a_fake_out_of_lines_refuses_and_raises_what_it_was_told() -> None:
    with pytest.raises(LanguageModelError, match="nothing more to say"):
        FakeModel([]).reply(ASKED, Colour)
    with pytest.raises(LanguageModelError, match="down"):
        FakeModel([LanguageModelError("down", "Wait.")]).reply(ASKED, Colour)


def test_what_is_sent(server: Server, connect: Callable[..., OpenAIModel]) -> None:
    server.status({"content": "{}"})
    model = connect(max_tokens=99, thinking_tokens=7)
    model.reply(ASKED, Colour)
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


def test_thoughts_without_an_answer_are_answered_without_thoughts(
    server: Server, connect: Callable[..., OpenAIModel]
) -> None:
    server.status({"reasoning": "hm hm"})
    server.status({"content": "{}"})
    model = connect(thinking_tokens=7)
    assert model.reply(ASKED, Colour) == Reply("{}", None)
    assert [body["thinking_token_budget"] for body in server.bodies] == [7, 0]
    assert model.usage.replies == 2
    server.status({"reasoning": "hm hm"})
    assert connect().reply(ASKED, Colour).content is None, "other servers do not know how"
    assert len(server.bodies) == 3


def test_older_servers_name_their_reasoning_otherwise(
    server: Server, connect: Callable[..., OpenAIModel]
) -> None:
    server.status({"content": None, "reasoning_content": "because"})
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
        (200, b"{", "answered without any message"),
        (200, b"data: {\n\n", "answered what is no reply"),
        (
            200,
            b'data: {"error": {"message": "sk-very-secret out of memory"}}\n\n',
            "no reply: .* out of memory",
        ),
        (200, b"data: [DONE]\n\n", "without any message"),
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
    server.status({"content": "yes"})
    assert connect(retries=1).reply(ASKED, Colour).content == "yes"


def test_a_slow_server_is_given_up(server: Server, connect: Callable[..., OpenAIModel]) -> None:
    server.script.append((200, b"{}", 30.0))
    with pytest.raises(LanguageModelError, match=r"did not answer within 0.2 s. Wait until"):
        connect(timeout_s=0.2).reply(ASKED, Colour)


def test_the_server_s_own_count_is_taken(server: Server, connect: Callable[..., OpenAIModel]) -> None:
    server.status({"content": "one two"}, usage=17)
    model = connect()
    model.reply(ASKED, Colour)
    assert (model.usage.prompt_tokens, model.usage.completion_tokens) == (5, 17)


@pytest.mark.parametrize("broken", ["connection", "no end"])
def test_a_server_that_dies_in_the_middle_of_its_answer(
    server: Server, connect: Callable[..., OpenAIModel], broken: str
) -> None:
    begun = told_in_pieces({"content": '{"name": "re'}, finish=None)
    server.script.append((200, iter([begun]) if broken == "connection" else begun, 0.0))
    with pytest.raises(LanguageModelError, match=r"/v1 broke off in the middle of its answer. See its log"):
        connect(retries=2).reply(ASKED, Colour)
    assert len(server.bodies) == 1


def test_a_server_that_falls_silent_or_never_ends(
    server: Server, connect: Callable[..., OpenAIModel]
) -> None:
    begun = told_in_pieces({"reasoning": "well"}, finish=None)

    def silent() -> Iterator[bytes]:
        yield begun
        server.wake.wait(30)

    server.script.append((200, silent(), 0.0))
    with pytest.raises(LanguageModelError, match=r"fell silent in its answer for 0.2 s. Wait until"):
        connect(timeout_s=0.2).reply(ASKED, Colour)
    server.script.append((200, repeat(begun), 0.0))
    with pytest.raises(LanguageModelError, match=r"still answering after 0.1 s \(\d+ tokens\)"):
        connect(limit_s=0.1).reply(ASKED, Colour)


def test_which_models_there_are(server: Server, connect: Callable[..., OpenAIModel]) -> None:
    server.models = ["tiny", "large"]
    assert connect().served() == ["tiny", "large"]


def test_usage_is_told() -> None:
    spent = Usage(1, 0, 1200, 300, 10.0) + Usage(cached=2)
    assert (
        str(spent) == "1 reply, 2 known from before, 1,200 tokens read, 300 written in 10.0 s (30.0 a second)"
    )
    assert str(Usage(cached=2)) == "0 replies, 2 known from before"


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
    server.status({"content": "yes"})
    connect().reply(ASKED, Colour)
    assert caplog.records
    assert KEY not in caplog.text
