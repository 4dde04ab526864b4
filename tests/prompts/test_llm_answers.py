"""Where models and servers put an answer, and the remedy for each cause of a failure."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from openai_server import stream_body
from pydantic import BaseModel, Field

from dsmoe_core.errors import LanguageModelError
from prompts.llm import Message, OpenAIModel, Reply, generate_structured

from .conftest import KEY, ScriptedServer

Connect = Callable[..., OpenAIModel]
MESSAGES = [Message("user", "which colour?")]


class Colour(BaseModel):
    name: str = Field(min_length=2)
    brightness: int


RED = Colour(name="red", brightness=3)
JSON = RED.model_dump_json()
OTHER = Colour(name="blue", brightness=1).model_dump_json()


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
@pytest.mark.parametrize("content", [None, "", " \n"])
@pytest.mark.parametrize(
    "reasoning", [JSON, f"```json\n{JSON}\n```", f"{{perhaps}} {OTHER}\nNo. So:\n{JSON}"]
)
@pytest.mark.parametrize("options", [{}, {"thinking_tokens": 7}])
def test_answer_in_the_reasoning_is_read_with_one_request(
    server: ScriptedServer, connect: Connect, field: str, content: str | None, reasoning: str, options: Any
) -> None:
    server.add_message({"content": content, field: reasoning})
    assert generate_structured(connect(**options), MESSAGES, Colour) == RED
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    "content",
    [
        f"For the pad {{left}} my answer is:\n{JSON}",
        f"{JSON}\n\nI chose {{brightness}} 3.",
        f"{JSON}\n{OTHER}",
        f"[{JSON}]",
        f"<think>hm, {{it}}? {OTHER}</think>{JSON}",
        f"well {{it}}.</think>\n\n{JSON}",
        f"<think>hm {JSON}",
        f"{JSON}<think>ok</think>",
        f"<|channel|>final<|message|>{JSON}",
        '{"name": "red", "brightness": "3"}',
    ],
)
def test_answer_among_other_text_is_read(server: ScriptedServer, connect: Connect, content: str) -> None:
    server.add_message({"content": content})
    assert generate_structured(connect(), MESSAGES, Colour, attempts=1) == RED


def test_content_comes_before_reasoning(server: ScriptedServer, connect: Connect) -> None:
    server.add_message({"content": JSON, "reasoning": OTHER})
    assert generate_structured(connect(), MESSAGES, Colour) == RED
    server.add_message({"content": "no idea", "reasoning": OTHER})
    server.add_message({"content": JSON})
    assert generate_structured(connect(), MESSAGES, Colour) == RED


def test_reply_of_a_server_that_does_not_stream_is_read(server: ScriptedServer, connect: Connect) -> None:
    message = {"role": "assistant", "content": JSON, "reasoning": "because"}
    usage = {"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14}
    document = {"choices": [{"index": 0, "finish_reason": "stop", "message": message}], "usage": usage}
    server.script.append((200, document, 0.0))
    model = connect()
    assert model.reply(MESSAGES, Colour) == Reply(JSON, "because")
    assert (model.usage.prompt_tokens, model.usage.completion_tokens) == (5, 9)


def failure(connect: Connect, **options: Any) -> LanguageModelError:
    with pytest.raises(LanguageModelError) as caught:
        generate_structured(connect(**options), MESSAGES, Colour, attempts=2)
    assert KEY not in str(caught.value)
    return caught.value


HTML = b"<!doctype html><html><body><h1>502 Bad Gateway</h1><hr>nginx</body></html>"


@pytest.mark.parametrize(
    ("status", "body", "headers", "value"),
    [
        (429, {"error": {"message": "slow down"}}, {"retry-after": "3600"}, "3600 s"),
        (429, {"error": {"message": "slow down"}}, {}, "minute"),
        (429, {"error": {"message": "no credit", "code": "insufficient_quota"}}, {}, "budget"),
        (500, {"error": {"message": "engine died"}}, {}, "log"),
        (503, {"error": {"message": "overloaded"}}, {}, "overloaded"),
        (502, HTML, {}, "behind"),
        (504, HTML, {}, "behind"),
        (200, HTML, {}, "/v1"),
        (200, HTML, {"Content-Type": "application/json"}, "/v1"),
        (404, HTML, {}, "/v1"),
        (401, {"error": {"message": f"{KEY} is wrong"}}, {}, "DSMOE_LLM_API_KEY"),
        (403, {"detail": "forbidden"}, {}, "DSMOE_LLM_API_KEY"),
        (404, {"error": {"message": "The model tiny does not exist"}}, {}, "'small', 'large'"),
        (
            400,
            {"error": {"message": "maximum context length is 512 tokens"}},
            {},
            "DSMOE_LLM_THINKING_TOKENS",
        ),
        (400, {"message": "the prompt", "code": "context_length_exceeded"}, {}, "THINKING_TOKENS"),
        (400, {"error": {"message": "'response_format.type' must be 'text'"}}, {}, "vLLM"),
        (200, b'data: {"error": {"message": "CUDA out of memory"}}\n\n', {}, "memory"),
    ],
)
def test_remedy_fits_the_cause(
    server: ScriptedServer, connect: Connect, status: int, body: Any, headers: dict[str, str], value: str
) -> None:
    server.models = ["small", "large"]
    server.script.append((status, body, 0.0, headers))
    error = failure(connect)
    assert value in error.remedy
    assert "larger model" not in error.remedy
    assert server.url in error.problem
    assert "<" not in error.problem


def test_missing_path_is_not_a_missing_model(server: ScriptedServer, connect: Connect) -> None:
    server.models = (404, {"detail": "Not Found"})
    server.script.append((404, {"detail": "Not Found"}, 0.0))
    error = failure(connect)
    assert "--llm" in error.remedy
    assert "--model" not in error.remedy


@pytest.mark.parametrize(
    "models", [(404, {"detail": "x"}), (200, HTML), (200, b"[]"), (200, b"{"), (500, {})]
)
def test_list_of_models_that_cannot_be_read_is_an_error(
    server: ScriptedServer, connect: Connect, models: Any
) -> None:
    server.models = models
    with pytest.raises(LanguageModelError, match=server.url):
        connect().served()


def test_delay_that_the_server_asks_for_is_kept(server: ScriptedServer, connect: Connect) -> None:
    server.script.append((429, {"error": {"message": "slow down"}}, 0.0, {"retry-after": "1"}))
    server.add_message({"content": JSON})
    started = time.monotonic()
    assert generate_structured(connect(retries=1), MESSAGES, Colour) == RED
    assert time.monotonic() - started >= 1


def test_long_delay_is_an_error_at_once(server: ScriptedServer, connect: Connect) -> None:
    server.script.append((429, {"error": {"message": "slow down"}}, 0.0, {"retry-after": "3600"}))
    failure(connect, retries=2)
    assert len(server.bodies) == 1


def test_timeout_names_its_setting(server: ScriptedServer, connect: Connect) -> None:
    server.script.append((200, b"{}", 30.0))
    assert "DSMOE_LLM_TIMEOUT_S" in failure(connect, timeout_s=0.2).remedy


def test_refused_connection_names_the_address(connect: Connect) -> None:
    error = failure(connect, url="http://127.0.0.1:1/v1")
    assert "http://127.0.0.1:1/v1" in error.problem
    assert "DSMOE_LLM_URL" in error.remedy


@pytest.mark.parametrize(
    "content", ['{"name": "red", "brightness": "very"}', '{"name": "red",}', '{"answer": {}}']
)
def test_larger_model_is_the_remedy_for_wrong_content_only(
    server: ScriptedServer, connect: Connect, content: str
) -> None:
    for _ in range(2):
        server.add_message({"content": content})
    assert "larger model" in failure(connect).remedy


@pytest.mark.parametrize(
    ("message", "finish", "value"),
    [
        ({"content": None}, "stop", "log"),
        ({"reasoning": "hm hm"}, "stop", "--reasoning-parser"),
        ({"reasoning": "hm hm"}, "length", "DSMOE_LLM_THINKING_TOKENS"),
        ({"content": JSON[:9]}, "length", "DSMOE_LLM_THINKING_TOKENS"),
        ({"content": "no idea"}, "stop", "JSON-schema"),
    ],
)
def test_remedy_for_an_answer_that_is_missing(
    server: ScriptedServer, connect: Connect, message: dict[str, Any], finish: str, value: str
) -> None:
    for _ in range(2):
        server.script.append((200, stream_body(message, finish=finish), 0.0))
    assert value in failure(connect).remedy


def test_line_breaks_in_strings_are_kept(server: ScriptedServer, connect: Connect) -> None:
    server.add_message({"content": JSON.replace("red", "dark\nred")})
    assert generate_structured(connect(), MESSAGES, Colour).name == "dark\nred"
