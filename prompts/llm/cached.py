"""A language model that is never asked the same question twice: its answers lie in a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from dsmoe_core.atomic import atomic_write
from prompts.llm.protocol import CountingModel, Message, Reply, Usage
from prompts.llm.structured_reply import ask


class CachedModel:
    """Replies with valid answers only, and keeps each in a file of its own.

    A question is the model's name, the messages, the schema of the answer and the model's settings; which
    server answers does not matter. Replies that were of no use are asked for again, as ``ask`` says, and not
    kept. Whoever wants a second answer to a question says so in the question.

    Args:
        model: asked only what is not known.
        folder: of the answers, made if missing; the files are JSON for people too, and may be removed.
        fresh: ask anew, and keep the new answers.
        attempts: see ``ask``.
    """

    def __init__(self, model: CountingModel, folder: Path, *, fresh: bool = False, attempts: int = 3) -> None:
        self.name = model.name
        self._model = model
        self._folder = folder
        self._fresh = fresh
        self._attempts = attempts
        self._kept = 0

    @property
    def settings(self) -> Mapping[str, Any]:
        return self._model.settings

    @property
    def usage(self) -> Usage:
        return self._model.usage + Usage(kept=self._kept)

    def reply(self, messages: Sequence[Message], shape: type[BaseModel]) -> Reply:
        """The answer that is kept, or a new one; see LanguageModel.

        Raises:
            LanguageModelError: the server failed, or no attempt gave a valid answer.
        """
        question = {
            "model": self.name,
            "settings": dict(self.settings),
            "schema": shape.model_json_schema(),
            "messages": [message._asdict() for message in messages],
        }
        text = json.dumps(question, sort_keys=True, ensure_ascii=False)
        path = self._folder / f"{hashlib.sha256(text.encode()).hexdigest()}.json"
        answer = None if self._fresh else _read(path, shape)
        if answer is None:
            answer = ask(self._model, messages, shape, attempts=self._attempts)
            kept = {**question, "answer": answer.model_dump(mode="json")}
            atomic_write(path, json.dumps(kept, ensure_ascii=False, indent=1))
        else:
            self._kept += 1
        return Reply(answer.model_dump_json(), None)


def _read(path: Path, shape: type[BaseModel]) -> BaseModel | None:
    """What is kept; None where that is nothing, or torn, or what the shape no longer takes."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))["answer"]
        return shape.model_validate_json(json.dumps(kept))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
