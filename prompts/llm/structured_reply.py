"""Requests an answer that validates against a pydantic model."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from dsmoe_core.errors import LanguageModelError
from prompts.llm.protocol import LanguageModel, Message, Reply

SchemaT = TypeVar("SchemaT", bound=BaseModel)
Cause = Literal["empty", "truncated", "no JSON", "invalid"]
_REASONING = re.compile(r"^.*</think>", re.DOTALL)
_OBJECT_START = re.compile(r'\{\s*["}]')  # a brace in prose is followed by something else
_DECODER = json.JSONDecoder(strict=False)  # not strict: models write line breaks within strings
_REMEDIES: dict[Cause, str] = {
    "empty": "Read the server's log; for a reasoning model, check the server's reasoning parser (vLLM: "
    "--reasoning-parser).",
    "truncated": "Limit the reasoning with DSMOE_LLM_THINKING_TOKENS (vLLM), or use a model that needs fewer "
    "tokens.",
    "no JSON": "Use a server that supports JSON-schema answers, such as vLLM, or try a larger model.",
    "invalid": "Try a larger model, or check that the server supports JSON-schema answers.",
}


@dataclass(frozen=True, slots=True)
class _Problem:
    """Why a reply has no valid answer."""

    cause: Cause
    text: str


def generate_structured(
    model: LanguageModel, messages: Sequence[Message], schema: type[SchemaT], *, attempts: int = 3
) -> SchemaT:
    """Request an answer of this schema; an invalid reply is sent back with its errors.

    Args:
        attempts: maximum number of replies.

    Raises:
        LanguageModelError: the server failed, or no attempt gave a valid answer.
    """
    conversation = list(messages)
    problem = _Problem("empty", "none was made")
    for _ in range(attempts):
        reply = model.reply(conversation, schema)
        answer = _find_answer(reply, schema)
        if not isinstance(answer, _Problem):
            return answer
        problem = answer
        correction = (
            f"That was not valid: {problem.text}. "
            "Answer again, with one JSON object of the given schema and nothing else."
        )
        conversation = [
            *messages,
            Message("assistant", (reply.content or "(nothing)")[:4000]),
            Message("user", correction),
        ]
    raise LanguageModelError(
        f"model {model.name} gave no valid answer in {attempts} attempts; the last one: {problem.text}",
        _REMEDIES[problem.cause],
    )


def has_answer(reply: Reply, schema: type[BaseModel]) -> bool:
    """Whether a reply has a valid answer, in its content or, where that is empty, in its reasoning."""
    return not isinstance(_find_answer(reply, schema), _Problem)


def _find_answer(reply: Reply, schema: type[SchemaT]) -> SchemaT | _Problem:
    """The first valid JSON object of a reply.

    Some servers leave reasoning and code fences in the content. Others put the whole answer into the
    reasoning; that is searched where the content is empty, from its end, where a conclusion stands.
    """
    content = (reply.content or "").strip()
    if content:
        answer = _REASONING.sub("", content).strip() or content
        objects, malformed = _json_objects(answer)
    else:
        objects, malformed = _json_objects(reply.reasoning or "")
        objects.reverse()
    errors: list[ValidationError] = []
    for candidate in objects:
        try:
            return schema.model_validate_json(json.dumps(candidate))
        except ValidationError as error:
            errors.append(error)
    return _problem(reply, content, errors, malformed)


def _json_objects(text: str) -> tuple[list[dict[str, Any]], str | None]:
    """The JSON objects in a text, without those within others, and why the last one cannot be read."""
    objects: list[dict[str, Any]] = []
    match = _OBJECT_START.search(text)
    while match:
        try:
            value, end = _DECODER.raw_decode(text, match.start())
        except (json.JSONDecodeError, RecursionError) as error:
            return objects, str(error)
        objects.append(value)
        match = _OBJECT_START.search(text, end)
    return objects, None


def _problem(
    reply: Reply, content: str, errors: Sequence[ValidationError], malformed: str | None
) -> _Problem:
    """Why no JSON object of a reply is a valid answer."""
    cause: Cause
    if not content:
        reasoning = f" after {len(reply.reasoning)} characters of reasoning" if reply.reasoning else ""
        cause, text = "empty", f"the answer was empty{reasoning}"
    elif errors:
        details = (
            f"{'.'.join(map(str, e['loc'])) or 'answer'}: {e['msg']}"
            for e in errors[0].errors(include_url=False)
        )
        cause, text = "invalid", "; ".join(details)
    elif malformed:
        cause, text = "invalid", f"the JSON of the answer is malformed: {malformed}"
    else:
        cause, text = "no JSON", "the answer holds no JSON object"
    if reply.truncated:
        return _Problem("truncated", f"{text}, truncated at the maximum number of tokens")
    return _Problem(cause, text)
