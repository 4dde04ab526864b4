"""Asks a language model and gets an answer of the shape that was asked for, or a clear error.

``OpenAIModel`` speaks to any OpenAI-compatible server (vLLM, for one); ``FakeModel`` says what it is told to.
``ask`` works with either.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from dsmoe_core.errors import LanguageModelError
from dsmoe_core.openai_server import OpenAIServer

Answer = TypeVar("Answer", bound=BaseModel)
_THOUGHT = re.compile(r"^.*</think>", re.DOTALL)


class Message(NamedTuple):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    text: str


class Reply(NamedTuple):
    """What came back: ``content`` is None where the model only reasoned."""

    content: str | None
    reasoning: str | None


class LanguageModel(Protocol):
    """Whatever can continue a conversation.

    Attributes:
        name: of the model, written into what it authored.
    """

    name: str

    def reply(self, messages: Sequence[Message], shape: type[BaseModel]) -> Reply:
        """One reply, which the server is asked to give in this shape.

        Raises:
            LanguageModelError: the server cannot be reached, refuses, or takes too long.
        """
        ...


def ask(
    model: LanguageModel, messages: Sequence[Message], shape: type[Answer], *, attempts: int = 3
) -> Answer:
    """An answer of this shape; one that is not is sent back with what is wrong, ``attempts`` times in all.

    Raises:
        LanguageModelError: the server failed, or no attempt gave a valid answer.
    """
    talk = list(messages)
    problem = ""
    for _ in range(attempts):
        reply = model.reply(talk, shape)
        try:
            return shape.model_validate_json(_json_part(reply))
        except ValidationError as error:
            problem = "; ".join(
                f"{'.'.join(map(str, one['loc'])) or 'answer'}: {one['msg']}" for one in error.errors()
            )
        except ValueError as error:
            problem = str(error)
        wrong = f"That was not valid: {problem}. Answer again, with one JSON object of the given schema only."
        talk = [
            *messages,
            Message("assistant", (reply.content or "(nothing)")[:4000]),
            Message("user", wrong),
        ]
    raise LanguageModelError(
        f"model {model.name} gave no valid answer in {attempts} attempts; the last one: {problem}",
        "Try a larger model, or check that the server supports JSON-schema answers.",
    )


def _json_part(reply: Reply) -> str:
    """The JSON of a reply, without thoughts or fences around it, which some servers leave in."""
    if reply.content is None or not reply.content.strip():
        thought = f" after {len(reply.reasoning)} characters of reasoning" if reply.reasoning else ""
        raise ValueError(f"the answer was empty{thought}")
    text = _THOUGHT.sub("", reply.content)
    begin, end = text.find("{"), text.rfind("}")
    if begin < 0 or end < begin:
        raise ValueError("the answer holds no JSON object")
    return text[begin : end + 1]


class OpenAIModel:
    """A model behind an OpenAI-compatible server.

    Args:
        url: of the API, usually ending in /v1.
        model: as the server names it.
        api_key: sent to the server, never shown in a message; None where it wants none.
        timeout_s: for one reply.
        retries: of a request that failed on its way or by overload.
        max_tokens: of one reply, reasoning included.
        thinking_tokens: most tokens of reasoning, for servers that know ``thinking_token_budget``.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 120.0,
        retries: int = 2,
        max_tokens: int = 2048,
        thinking_tokens: int | None = None,
    ) -> None:
        self.name = model
        self._server = OpenAIServer(url, api_key=api_key, timeout_s=timeout_s, retries=retries)
        self._max_tokens = max_tokens
        self._extra = {} if thinking_tokens is None else {"thinking_token_budget": thinking_tokens}

    def close(self) -> None:
        """Gives the connections back."""
        self._server.close()

    def reply(self, messages: Sequence[Message], shape: type[BaseModel]) -> Reply:
        """One reply, by JSON-schema ``response_format``; see LanguageModel."""
        talk: Any = [{"role": m.role, "content": m.text} for m in messages]
        schema = {"name": shape.__name__, "schema": shape.model_json_schema(), "strict": True}
        form: Any = {"type": "json_schema", "json_schema": schema}
        with self._server.told_clearly(self.name):
            completion = self._server.client.chat.completions.create(
                model=self.name,
                messages=talk,
                response_format=form,
                max_tokens=self._max_tokens,
                extra_body=self._extra,
            )
        choices = getattr(completion, "choices", None)
        if not choices or getattr(choices[0], "message", None) is None:
            raise LanguageModelError(
                f"{self._server.url} answered without any message",
                "Check that it is an OpenAI-compatible server.",
            )
        message = choices[0].message
        reasoning = getattr(message, "reasoning", None) or getattr(message, "reasoning_content", None)
        content = message.content if isinstance(message.content, str) else None
        return Reply(content, reasoning if isinstance(reasoning, str) else None)


class FakeModel:
    """Says what its script says, in order: texts, replies, or errors to raise; then it refuses.

    Attributes:
        asked: the conversations it was given.
    """

    def __init__(
        self, script: Iterable[str | Reply | dict[str, Any] | Exception], name: str = "fake"
    ) -> None:
        self.name = name
        self.asked: list[list[Message]] = []
        self._script = list(script)

    def reply(self, messages: Sequence[Message], shape: type[BaseModel]) -> Reply:  # noqa: ARG002
        """The next line of the script; see LanguageModel."""
        self.asked.append(list(messages))
        if not self._script:
            raise LanguageModelError(f"model {self.name} has nothing more to say", "Give it a longer script.")
        line = self._script.pop(0)
        if isinstance(line, Exception):
            raise line
        if isinstance(line, Reply):
            return line
        return Reply(line if isinstance(line, str) else json.dumps(line), None)
