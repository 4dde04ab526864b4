"""Asks a language model and gets an answer of the shape that was asked for, or a clear error."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from dsmoe_core.errors import LanguageModelError
from prompts.llm.protocol import LanguageModel, Message, Reply

Answer = TypeVar("Answer", bound=BaseModel)
_THOUGHT = re.compile(r"^.*</think>", re.DOTALL)


def ask(
    model: LanguageModel, messages: Sequence[Message], shape: type[Answer], *, attempts: int = 3
) -> Answer:
    """An answer of this shape; one that is not is sent back with what is wrong, ``attempts`` times in all.

    Raises:
        LanguageModelError: the server failed, or no attempt gave a valid answer.
    """
    talk = list(messages)
    problem = ""
    for _ in range(attempts):
        reply = model.reply(talk, shape)
        try:
            return shape.model_validate_json(_json_part(reply))
        except ValidationError as error:
            problem = _told(error, reply)
        except ValueError as error:
            problem = str(error)
        wrong = f"That was not valid: {problem}. Answer again, with one JSON object of the given schema only."
        talk = [
            *messages,
            Message("assistant", (reply.content or "(nothing)")[:4000]),
            Message("user", wrong),
        ]
    raise LanguageModelError(
        f"model {model.name} gave no valid answer in {attempts} attempts; the last one: {problem}",
        "Try a larger model, or check that the server supports JSON-schema answers.",
    )


def _told(error: ValidationError, reply: Reply) -> str:
    wrong = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'answer'}: {one['msg']}" for one in error.errors())
    return f"{wrong} (it was cut off at the most tokens of a reply)" if reply.cut else wrong


def _json_part(reply: Reply) -> str:
    """The JSON of a reply, without thoughts or fences around it, which some servers leave in."""
    cut = ", cut off at the most tokens of a reply" if reply.cut else ""
    if reply.content is None or not reply.content.strip():
        thought = f" after {len(reply.reasoning)} characters of reasoning" if reply.reasoning else ""
        raise ValueError(f"the answer was empty{thought}{cut}")
    text = _THOUGHT.sub("", reply.content)
    begin, end = text.find("{"), text.rfind("}")
    if begin < 0 or end < begin:
        raise ValueError(f"the answer holds no JSON object{cut}")
    return text[begin : end + 1]
