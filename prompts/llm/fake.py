"""A language model that says what it is told to, for tests and for trying things out without a server."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from dsmoe_core.errors import LanguageModelError
from prompts.llm.protocol import Heard, Message, Reply, Usage


class FakeModel:
    """Says what its script says, in order: texts, replies, or errors to raise; then it refuses.

    Its tokens are words.

    Attributes:
        asked: the conversations it was given.
    """

    settings: Mapping[str, Any] = {}

    def __init__(
        self,
        script: Iterable[str | Reply | dict[str, Any] | Exception],
        name: str = "fake",
        *,
        heard: Heard | None = None,
    ) -> None:
        self.name = name
        self.usage = Usage()
        self.asked: list[list[Message]] = []
        self._heard = heard
        self._script = list(script)

    def reply(self, messages: Sequence[Message], shape: type[BaseModel]) -> Reply:  # noqa: ARG002
        """The next line of the script; see LanguageModel."""
        self.asked.append(list(messages))
        if not self._script:
            raise LanguageModelError(f"model {self.name} has nothing more to say", "Give it a longer script.")
        line = self._script.pop(0)
        if isinstance(line, Exception):
            raise line
        if not isinstance(line, Reply):
            line = Reply(line if isinstance(line, str) else json.dumps(line), None)
        thought, said = (len((part or "").split()) for part in (line.reasoning, line.content))
        if self._heard is not None:
            for token in range(1, thought + said + 1):
                self._heard(token, token <= thought)
        read = sum(len(message.text.split()) for message in messages)
        self.usage += Usage(asked=1, read=read, written=thought + said)
        return line
