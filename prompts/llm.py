"""Asks a language model and gets an answer of the shape that was asked for, or a clear error.

``OpenAIModel`` speaks to any OpenAI-compatible server (vLLM, for one); ``FakeModel`` says what it is told to.
``ask`` works with either.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any, Literal, NamedTuple, Protocol, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from dsmoe_core.errors import LanguageModelError, PrerequisiteError

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
        try:
            from openai import DefaultHttpxClient, OpenAI  # an extra, so imported where it is needed
        except ImportError:
            raise PrerequisiteError(
                "the package openai is missing", "Install it: pip install 'dsmoe[llm]'."
            ) from None
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise LanguageModelError(
                f"the server's address is {_without_login(url)!r}; expected http://HOST:PORT/v1",
                "Correct it.",
            )
        if "@" in urlsplit(url).netloc:  # the HTTP library writes addresses into its log
            raise LanguageModelError(
                f"the server's address {_without_login(url)!r} was given with a login in it",
                "Give the login as the API key instead.",
            )
        self.name = model
        self._url = url
        self._key = api_key
        self._timeout_s = timeout_s
        self._max_tokens = max_tokens
        self._extra = {} if thinking_tokens is None else {"thinking_token_budget": thinking_tokens}
        self._client = OpenAI(
            base_url=url,
            api_key=api_key or "none",
            timeout=timeout_s,
            max_retries=retries,
            # A proxy from the environment cannot reach this machine's own servers.
            http_client=DefaultHttpxClient(trust_env=not _is_local(url), timeout=timeout_s),
        )

    def close(self) -> None:
        """Gives the connections back."""
        self._client.close()

    def reply(self, messages: Sequence[Message], shape: type[BaseModel]) -> Reply:
        """One reply, by JSON-schema ``response_format``; see LanguageModel."""
        talk: Any = [{"role": m.role, "content": m.text} for m in messages]
        schema = {"name": shape.__name__, "schema": shape.model_json_schema(), "strict": True}
        form: Any = {"type": "json_schema", "json_schema": schema}
        with self._told_clearly():
            completion = self._client.chat.completions.create(
                model=self.name,
                messages=talk,
                response_format=form,
                max_tokens=self._max_tokens,
                extra_body=self._extra,
            )
        choices = getattr(completion, "choices", None)
        if not choices or getattr(choices[0], "message", None) is None:
            raise LanguageModelError(
                f"{self._url} answered without any message", "Check that it is an OpenAI-compatible server."
            )
        message = choices[0].message
        reasoning = getattr(message, "reasoning", None) or getattr(message, "reasoning_content", None)
        content = message.content if isinstance(message.content, str) else None
        return Reply(content, reasoning if isinstance(reasoning, str) else None)

    @contextmanager
    def _told_clearly(self) -> Iterator[None]:
        import openai

        try:
            yield
        except openai.APITimeoutError:
            raise LanguageModelError(
                f"{self._url} did not answer within {self._timeout_s:g} s",
                "Wait until the server is ready, or allow it more time.",
            ) from None
        except openai.APIConnectionError as error:
            cause = self._hushed(str(error.__cause__ or error))
            raise LanguageModelError(
                f"{self._url} cannot be reached: {cause}", "Start the server, or correct its address."
            ) from None
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise LanguageModelError(
                f"{self._url} refused the API key (status {error.status_code})", "Give the right API key."
            ) from None
        except openai.APIStatusError as error:
            said = self._hushed(str(error.message))[:300]
            raise LanguageModelError(
                f"{self._url} refused model {self.name!r} (status {error.status_code}): {said}",
                "Check the model's name and the server's log.",
            ) from None
        except (openai.OpenAIError, json.JSONDecodeError) as error:
            raise LanguageModelError(
                f"{self._url} answered what is no reply: {self._hushed(str(error))[:300]}",
                "Check that it is an OpenAI-compatible server.",
            ) from None

    def _hushed(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def _without_login(url: str) -> str:
    """The address without a user name or password in it."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # a name
        return False


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
