"""Cache of a language model's answers, in files of a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from dsmoe_core.atomic import atomic_write
from prompts.llm.protocol import CountingModel, Message, Reply, Usage
from prompts.llm.structured_reply import generate_structured


class CachedModel:
    """Language model that returns cached answers for requests that were answered before.

    The key of a request is the model's name, the messages, the schema of the answer and the model's settings;
    the server's address is not part of it. Only valid answers are cached: an invalid reply is requested again
    as ``generate_structured`` does.

    Args:
        model: called for requests that are not in the cache.
        folder: of the answers, one JSON file each; made if missing. Files may be removed.
        fresh: ignore cached answers, and replace them with the new ones.
        attempts: see ``generate_structured``.
    """

    def __init__(self, model: CountingModel, folder: Path, *, fresh: bool = False, attempts: int = 3) -> None:
        self.name = model.name
        self._model = model
        self._folder = folder
        self._fresh = fresh
        self._attempts = attempts
        self._cached = 0

    @property
    def settings(self) -> Mapping[str, Any]:
        """Settings of the wrapped model."""
        return self._model.settings

    @property
    def usage(self) -> Usage:
        """Usage of the wrapped model, with the number of cached answers."""
        return self._model.usage + Usage(cached=self._cached)

    def reply(self, messages: Sequence[Message], schema: type[BaseModel]) -> Reply:
        """The cached answer, or a new one; see LanguageModel.

        Raises:
            LanguageModelError: the server failed, or no attempt gave a valid answer.
        """
        request = {
            "model": self.name,
            "settings": dict(self.settings),
            "schema": schema.model_json_schema(),
            "messages": [message._asdict() for message in messages],
        }
        text = json.dumps(request, sort_keys=True, ensure_ascii=False)
        path = self._folder / f"{hashlib.sha256(text.encode()).hexdigest()}.json"
        answer = None if self._fresh else _read(path, schema)
        if answer is None:
            answer = generate_structured(self._model, messages, schema, attempts=self._attempts)
            entry = {**request, "answer": answer.model_dump(mode="json")}
            atomic_write(path, json.dumps(entry, ensure_ascii=False, indent=1))
        else:
            self._cached += 1
        return Reply(answer.model_dump_json(), None)


def _read(path: Path, schema: type[BaseModel]) -> BaseModel | None:
    """The answer in a cache file; None if the file is missing, damaged or does not validate."""
    try:
        answer = json.loads(path.read_text(encoding="utf-8"))["answer"]
        return schema.model_validate_json(json.dumps(answer))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
