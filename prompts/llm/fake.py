"""Language model with scripted replies, for tests and for use without a server."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from dsmoe_core.errors import LanguageModelError
from prompts.llm.protocol import Message, Reply, TokenProgress, Usage


class FakeModel:
    """Returns the entries of a script in order: texts, replies, or errors to raise; then it raises an error.

    Tokens are counted as words.

    Attributes:
        requests: messages of each call so far.
    """

    settings: Mapping[str, Any] = {}

    def __init__(
        self,
        script: Iterable[str | Reply | dict[str, Any] | Exception],
        name: str = "fake",
        *,
        on_token: TokenProgress | None = None,
    ) -> None:
        self.name = name
        self.usage = Usage()
        self.requests: list[list[Message]] = []
        self._on_token = on_token
        self._script = list(script)

    def reply(self, messages: Sequence[Message], schema: type[BaseModel]) -> Reply:  # noqa: ARG002
        """The next entry of the script; see LanguageModel."""
        self.requests.append(list(messages))
        if not self._script:
            raise LanguageModelError(
                f"the script of the fake model {self.name} is used up", "Give it a longer script."
            )
        entry = self._script.pop(0)
        if isinstance(entry, Exception):
            raise entry
        if not isinstance(entry, Reply):
            entry = Reply(entry if isinstance(entry, str) else json.dumps(entry), None)
        reasoning, content = (len((part or "").split()) for part in (entry.reasoning, entry.content))
        if self._on_token is not None:
            for token in range(1, reasoning + content + 1):
                self._on_token(token, token <= reasoning)
        prompt = sum(len(message.text.split()) for message in messages)
        self.usage += Usage(replies=1, prompt_tokens=prompt, completion_tokens=reasoning + content)
        return entry
