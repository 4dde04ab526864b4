"""The words of a conversation with a language model, and what one must do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from pydantic import BaseModel

Heard = Callable[[int, bool], None]
"""Called while a reply comes in, with the tokens so far, and whether the model still thinks."""


class Message(NamedTuple):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    text: str


class Reply(NamedTuple):
    """What came back.

    Attributes:
        content: None where the model only reasoned.
        reasoning: what it thought before, where the server tells that apart.
        cut: it came to the limit of its length, so the end is missing.
    """

    content: str | None
    reasoning: str | None
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """What questions cost.

    Attributes:
        asked: replies that a model gave, those included that were of no use.
        kept: questions whose answer was known from before.
        read: tokens of the questions.
        written: tokens of the replies, reasoning included.
        seconds: of waiting.
    """

    asked: int = 0
    kept: int = 0
    read: int = 0
    written: int = 0
    seconds: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.asked + other.asked,
            self.kept + other.kept,
            self.read + other.read,
            self.written + other.written,
            self.seconds + other.seconds,
        )

    @property
    def tokens(self) -> int:
        """Read and written."""
        return self.read + self.written

    def __str__(self) -> str:
        pace = f" ({self.written / self.seconds:.1f} a second)" if self.seconds and self.written else ""
        parts = [f"{self.asked} {'reply' if self.asked == 1 else 'replies'}"]
        if self.kept:
            parts.append(f"{self.kept} known from before")
        if self.asked:
            parts += [f"{self.read:,} tokens read", f"{self.written:,} written in {self.seconds:.1f} s{pace}"]
        return ", ".join(parts)


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


class CountingModel(LanguageModel, Protocol):
    """One that says what its answers depend on beside the question, and what they cost so far."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Plain values; nothing of the server is in them."""
        ...

    @property
    def usage(self) -> Usage:
        """Of all replies so far; one that failed on its way is not in it."""
        ...
