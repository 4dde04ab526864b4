"""Requests an answer that validates against a pydantic model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from dsmoe_core.errors import LanguageModelError
from prompts.llm.protocol import LanguageModel, Message, Reply

SchemaT = TypeVar("SchemaT", bound=BaseModel)
_REASONING = re.compile(r"^.*</think>", re.DOTALL)


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
    problem = ""
    for _ in range(attempts):
        reply = model.reply(conversation, schema)
        try:
            return schema.model_validate_json(_json_part(reply))
        except ValidationError as error:
            problem = _format_errors(error, reply)
        except ValueError as error:
            problem = str(error)
        correction = (
            f"That was not valid: {problem}. Answer again, with one JSON object of the given schema only."
        )
        conversation = [
            *messages,
            Message("assistant", (reply.content or "(nothing)")[:4000]),
            Message("user", correction),
        ]
    raise LanguageModelError(
        f"model {model.name} gave no valid answer in {attempts} attempts; the last one: {problem}",
        "Try a larger model, or check that the server supports JSON-schema answers.",
    )


def _format_errors(error: ValidationError, reply: Reply) -> str:
    errors = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'answer'}: {e['msg']}" for e in error.errors())
    return f"{errors} (truncated at the maximum number of tokens)" if reply.truncated else errors


def _json_part(reply: Reply) -> str:
    """The JSON object in a reply, without the reasoning and code fences that some servers leave in.

    Raises:
        ValueError: the reply has no JSON object.
    """
    truncated = ", truncated at the maximum number of tokens" if reply.truncated else ""
    if reply.content is None or not reply.content.strip():
        reasoning = f" after {len(reply.reasoning)} characters of reasoning" if reply.reasoning else ""
        raise ValueError(f"the answer was empty{reasoning}{truncated}")
    text = _REASONING.sub("", reply.content)
    begin, end = text.find("{"), text.rfind("}")
    if begin < 0 or end < begin:
        raise ValueError(f"the answer holds no JSON object{truncated}")
    return text[begin : end + 1]
