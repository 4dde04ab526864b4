"""Interface of a language model: messages, replies and token usage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from pydantic import BaseModel

TokenProgress = Callable[[int, bool], None]
"""Called while a reply is streamed: with the tokens so far, and whether they are reasoning tokens."""


class Message(NamedTuple):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    text: str


class Reply(NamedTuple):
    """A model's reply.

    Attributes:
        content: None if the reply has reasoning only.
        reasoning: the reasoning before the content, if the server separates the two.
        truncated: the reply reached the maximum number of tokens, so its end is missing.
    """

    content: str | None
    reasoning: str | None
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """What requests to a model have cost.

    Attributes:
        replies: received from the model, invalid ones included.
        cached: answers that were taken from the cache.
        prompt_tokens: tokens of the messages.
        completion_tokens: tokens of the replies, reasoning included.
        seconds: time spent waiting for replies.
    """

    replies: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.replies + other.replies,
            self.cached + other.cached,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.seconds + other.seconds,
        )

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens together."""
        return self.prompt_tokens + self.completion_tokens

    def __str__(self) -> str:
        parts = [f"{self.replies} {'reply' if self.replies == 1 else 'replies'}"]
        if self.cached:
            parts.append(f"{self.cached} from the cache")
        if self.replies:
            completion = self.completion_tokens
            rate = f" ({completion / self.seconds:.1f} tokens/s)" if self.seconds and completion else ""
            parts.append(f"{self.prompt_tokens:,} prompt tokens")
            parts.append(f"{completion:,} completion tokens in {self.seconds:.1f} s{rate}")
        return ", ".join(parts)


class LanguageModel(Protocol):
    """A chat model that can answer in JSON.

    Attributes:
        name: of the model, recorded as the author of its texts.
    """

    name: str

    def reply(self, messages: Sequence[Message], schema: type[BaseModel]) -> Reply:
        """Generate one reply.

        Args:
            messages: the conversation so far.
            schema: pydantic model whose JSON schema the server is asked to enforce.

        Raises:
            LanguageModelError: the server cannot be reached, refuses, or takes too long.
        """
        ...


class CountingModel(LanguageModel, Protocol):
    """A language model that reports its settings and its usage."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Plain values that change the model's replies, such as ``max_tokens``; nothing of the server."""
        ...

    @property
    def usage(self) -> Usage:
        """Usage of all replies so far, without requests that failed."""
        ...
