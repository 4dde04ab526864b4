"""A language model behind a server that speaks the OpenAI protocol, such as vLLM."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from dsmoe_core.errors import LanguageModelError
from dsmoe_core.openai_server import OpenAIServer
from prompts.llm.protocol import Heard, Message, Reply, Usage

THINKING = "thinking_token_budget"
NO_THOUGHT = {THINKING: 0}


class OpenAIModel:
    """Asks for JSON-schema answers and reads them as they come in, so that a slow model is no silent one.

    Args:
        url: of the API, usually ending in /v1.
        model: as the server names it.
        api_key: sent to the server, never shown in a message; None where it wants none.
        timeout_s: the longest silence: before the first token, and between two.
        limit_s: for one reply as a whole.
        retries: of a request that failed on its way or by overload; never of a reply that had begun.
        max_tokens: of one reply, reasoning included.
        thinking_tokens: most tokens of reasoning, for servers that know ``thinking_token_budget``.
        heard: told of each token.

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
        heard: Heard | None = None,
    ) -> None:
        self.name = model
        self.usage = Usage()
        self._server = OpenAIServer(url, api_key=api_key, timeout_s=timeout_s, retries=retries)
        self._limit_s = limit_s
        self._max_tokens = max_tokens
        self._extra = {} if thinking_tokens is None else {THINKING: thinking_tokens}
        self._heard = heard or (lambda _tokens, _thinks: None)

    @property
    def settings(self) -> Mapping[str, Any]:
        """See CountingModel."""
        return {"max_tokens": self._max_tokens, **self._extra}

    def close(self) -> None:
        """Gives the connections back."""
        self._server.close()

    def served(self) -> list[str]:
        """The names of the models that the server has.

        Raises:
            LanguageModelError: see LanguageModel.
        """
        with self._server.clear_errors(self.name):
            return [model.id for model in self._server.client.models.list().data or ()]

    def reply(self, messages: Sequence[Message], shape: type[BaseModel]) -> Reply:
        """One reply, by JSON-schema ``response_format``; see LanguageModel.

        A model that ends within its thoughts is asked once more, without any, where the server sees to that.
        """
        said = self._asked(messages, shape, self._extra)
        if not said.content and self._extra:
            said = self._asked(messages, shape, NO_THOUGHT)
        return said.reply()

    def _asked(self, messages: Sequence[Message], shape: type[BaseModel], extra: Mapping[str, Any]) -> _Said:
        talk: Any = [{"role": m.role, "content": m.text} for m in messages]
        schema = {"name": shape.__name__, "schema": shape.model_json_schema(), "strict": True}
        form: Any = {"type": "json_schema", "json_schema": schema}
        began = time.monotonic()
        with self._server.clear_errors(self.name):
            stream = self._server.client.chat.completions.create(
                model=self.name,
                messages=talk,
                response_format=form,
                max_tokens=self._max_tokens,
                stream=True,
                stream_options={"include_usage": True},
                extra_body=dict(extra),
            )
        with stream, self._server.clear_errors(self.name, begun=True):
            said = self._listen(stream, began)
        self.usage += Usage(1, 0, said.read, said.written, time.monotonic() - began)
        return said

    def _listen(self, chunks: Iterable[Any], began: float) -> _Said:
        """The reply as it comes in.

        Raises:
            LanguageModelError: it has no end, or there is none at all.
        """
        said = _Said()
        for chunk in chunks:
            if said.take(chunk):
                self._heard(said.written, not said.content)
            if time.monotonic() - began > self._limit_s:
                tokens = f"{said.written} tokens"
                raise LanguageModelError(
                    f"{self._server.url} was still answering after {self._limit_s:g} s ({tokens})",
                    "Choose a smaller model, or give it fewer tokens to think.",
                )
        if not said.begun:
            raise LanguageModelError(
                f"{self._server.url} answered without any message",
                "Check that it is an OpenAI-compatible server, with streaming.",
            )
        if said.ended is None:
            raise self._server.broken_off()
        return said


class _Said:
    """What was said so far."""

    def __init__(self) -> None:
        self.content = ""
        self.reasoning = ""
        self.ended: str | None = None
        self.begun = False
        self.read = 0
        self.written = 0

    def take(self, chunk: Any) -> bool:
        """Whether it brought a token, or several."""
        used = getattr(chunk, "usage", None)
        if used is not None:  # the server's own count is the right one
            self.read, self.written = used.prompt_tokens or 0, used.completion_tokens or 0
        choices: Any = getattr(chunk, "choices", None)
        delta = getattr(choices[0], "delta", None) if choices else None
        if delta is None:
            return False
        self.begun = True
        self.ended = getattr(choices[0], "finish_reason", None) or self.ended
        thought = getattr(delta, "reasoning", None) or getattr(delta, "reasoning_content", None)
        content = getattr(delta, "content", None)
        self.reasoning += thought if isinstance(thought, str) else ""
        self.content += content if isinstance(content, str) else ""
        came = bool(thought or content)
        self.written += came
        return came

    def reply(self) -> Reply:
        return Reply(self.content or None, self.reasoning or None, cut=self.ended == "length")
