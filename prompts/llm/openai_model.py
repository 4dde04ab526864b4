"""Language model behind a server with the OpenAI protocol, such as vLLM."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from pydantic import BaseModel

from dsmoe_core.errors import LanguageModelError
from dsmoe_core.openai_errors import (
    LANGUAGE_MODEL,
    interrupted_error,
    invalid_response_error,
    is_web_page,
    web_page_error,
)
from dsmoe_core.openai_server import OpenAIServer
from prompts.llm.protocol import Message, Reply, TokenProgress, Usage
from prompts.llm.structured_reply import has_answer

THINKING_BUDGET = "thinking_token_budget"
"""Extra request field of vLLM that limits the reasoning tokens of a reply."""


class OpenAIModel:
    """Client that requests JSON-schema answers and streams them, so that progress can be shown.

    Args:
        url: of the API, usually ending in /v1.
        model: name of the model on the server.
        api_key: sent to the server, never shown in a message; None if the server needs none.
        timeout_s: maximum seconds without a token: before the first one, and between two.
        limit_s: maximum seconds of one reply.
        retries: of a request that failed in transit or because of overload; a reply that has begun is not
            retried.
        max_tokens: of one reply, reasoning included.
        thinking_tokens: maximum reasoning tokens, for servers that support ``thinking_token_budget``.
        on_token: called for each streamed token.

    Attributes:
        usage: of all replies so far.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 120.0,
        limit_s: float = 1800.0,
        retries: int = 2,
        max_tokens: int = 4096,
        thinking_tokens: int | None = None,
        on_token: TokenProgress | None = None,
    ) -> None:
        self.name = model
        self.usage = Usage()
        self._server = OpenAIServer(
            url, names=LANGUAGE_MODEL, api_key=api_key, timeout_s=timeout_s, retries=retries
        )
        self._limit_s = limit_s
        self._max_tokens = max_tokens
        self._extra = {} if thinking_tokens is None else {THINKING_BUDGET: thinking_tokens}
        self._on_token = on_token or (lambda _tokens, _reasoning: None)

    @property
    def settings(self) -> Mapping[str, Any]:
        """Limits of a reply; see CountingModel."""
        return {"max_tokens": self._max_tokens, **self._extra}

    def close(self) -> None:
        """Close the connections."""
        self._server.close()

    def served(self) -> list[str]:
        """Names of the models on the server.

        Raises:
            LanguageModelError: see LanguageModel.
        """
        return self._server.served()

    def reply(self, messages: Sequence[Message], schema: type[BaseModel]) -> Reply:
        """Generate one reply, with a JSON-schema ``response_format``; see LanguageModel.

        If a reply has reasoning without an answer in it and no content, and the server supports a thinking
        budget, the request is repeated once with a budget of 0.
        """
        reply = self._request(messages, schema, self._extra).reply()
        if not reply.content and self._extra and not has_answer(reply, schema):
            return self._request(messages, schema, {THINKING_BUDGET: 0}).reply()
        return reply

    def _request(
        self, messages: Sequence[Message], schema: type[BaseModel], extra: Mapping[str, Any]
    ) -> _StreamedReply:
        json_schema = {"name": schema.__name__, "schema": schema.model_json_schema(), "strict": True}
        conversation: Any = [{"role": m.role, "content": m.text} for m in messages]
        response_format: Any = {"type": "json_schema", "json_schema": json_schema}
        started = time.monotonic()
        with self._server.translated_errors(self.name):
            stream = self._server.client.chat.completions.create(
                model=self.name,
                messages=conversation,
                response_format=response_format,
                max_tokens=self._max_tokens,
                stream=True,
                stream_options={"include_usage": True},
                extra_body=dict(extra),
            )
        with stream, self._server.translated_errors(self.name, begun=True):
            kind = stream.response.headers.get("content-type", "")
            is_whole = "json" in kind or "html" in kind
            streamed = self._receive([self._whole_reply(stream)] if is_whole else stream, started)
        self.usage += Usage(
            replies=1,
            prompt_tokens=streamed.prompt_tokens,
            completion_tokens=streamed.completion_tokens,
            seconds=time.monotonic() - started,
        )
        return streamed

    def _whole_reply(self, stream: Any) -> Any:
        """The reply of a server that does not stream, in the form of a chunk of a stream.

        Raises:
            LanguageModelError: the response is a web page, or no reply.
        """
        import httpx2  # the HTTP library of openai

        request = self._server.request(self.name)
        try:
            body = stream.response.read().decode(errors="replace")
        except httpx2.HTTPError:
            raise interrupted_error(self._server.url) from None
        if is_web_page(body):
            raise web_page_error(request)
        try:
            document = json.loads(body, object_hook=lambda content: SimpleNamespace(**content))
            for choice in document.choices:
                choice.delta = choice.message
        except (ValueError, TypeError, AttributeError):
            raise invalid_response_error(request, "it has no message") from None
        return document

    def _receive(self, chunks: Iterable[Any], started: float) -> _StreamedReply:
        """Collect the chunks of a stream.

        Raises:
            LanguageModelError: the reply is empty, takes too long, or breaks off.
        """
        streamed = _StreamedReply()
        for chunk in chunks:
            if streamed.add(chunk):
                self._on_token(streamed.completion_tokens, not streamed.content)
            if time.monotonic() - started > self._limit_s:
                tokens = f"{streamed.completion_tokens} tokens"
                raise LanguageModelError(
                    f"{self._server.url} was still answering after {self._limit_s:g} s ({tokens})",
                    "Serve a smaller model, or limit its reasoning with DSMOE_LLM_THINKING_TOKENS.",
                )
        if not streamed.has_message:
            raise LanguageModelError(
                f"{self._server.url} answered without any message",
                "Check that it is an OpenAI-compatible server, with streaming.",
            )
        if streamed.finish_reason is None:
            raise interrupted_error(self._server.url)
        return streamed


class _StreamedReply:
    """The part of a reply that has arrived so far."""

    def __init__(self) -> None:
        self.content = ""
        self.reasoning = ""
        self.finish_reason: str | None = None
        self.has_message = False
        self.prompt_tokens = 0
        self.completion_tokens = 0

    def add(self, chunk: Any) -> bool:
        """Add a chunk; returns whether it had text."""
        has_text = self._add_text(chunk)
        self.completion_tokens += has_text
        usage = getattr(chunk, "usage", None)
        if usage is not None:  # the server's count replaces our count of chunks
            self.prompt_tokens = usage.prompt_tokens or 0
            self.completion_tokens = usage.completion_tokens or 0
        return has_text

    def _add_text(self, chunk: Any) -> bool:
        choices: Any = getattr(chunk, "choices", None)
        delta = getattr(choices[0], "delta", None) if choices else None
        if delta is None:
            return False
        self.has_message = True
        self.finish_reason = getattr(choices[0], "finish_reason", None) or self.finish_reason
        reasoning = getattr(delta, "reasoning", None) or getattr(delta, "reasoning_content", None)
        content = getattr(delta, "content", None)
        self.reasoning += reasoning if isinstance(reasoning, str) else ""
        self.content += content if isinstance(content, str) else ""
        return bool(reasoning or content)

    def reply(self) -> Reply:
        """The complete reply."""
        return Reply(self.content or None, self.reasoning or None, truncated=self.finish_reason == "length")
