"""Whether a language model can do what we ask of it, found by asking it one thing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints

from dsmoe_core.errors import LanguageModelError
from prompts.llm import Message, OpenAIModel, Reply, Usage, generate_structured


class SampleReply(BaseModel):
    """The answer to the one question."""

    defect: Annotated[str, StringConstraints(min_length=1, max_length=60)]
    visible: bool
    severity: int = Field(ge=0, le=9)


QUESTION = [
    Message("system", "Answer as one JSON object of the given schema, and with nothing else."),
    Message(
        "user",
        "A scratch crosses a copper pad from edge to edge. "
        "Which defect is it, can it be seen, and how severe is it from 0 to 9?",
    ),
]


@dataclass(frozen=True, slots=True)
class LanguageModelCheck:
    """What was found.

    Attributes:
        answer: valid, in the shape that was asked for.
        reasoned: the server told reasoning apart from the answer.
    """

    model: str
    answer: SampleReply
    reasoned: bool
    usage: Usage


class _Listening:
    """The model, with its replies noted."""

    def __init__(self, model: OpenAIModel) -> None:
        self.name = model.name
        self._model = model
        self.reasoned = False

    def reply(self, messages: Sequence[Message], schema: type[BaseModel]) -> Reply:
        reply = self._model.reply(messages, schema)
        self.reasoned |= bool(reply.reasoning)
        return reply


def check(model: OpenAIModel) -> LanguageModelCheck:
    """Ask it the question.

    Raises:
        LanguageModelError: the server cannot be reached, does not have the model, or gives no valid answer.
    """
    served = model.served()
    if served and model.name not in served:  # a server that lists none may have it all the same
        raise LanguageModelError(
            f"the server has no model {model.name!r}; it has {', '.join(map(repr, served[:9]))}",
            "Name one of these with --model or DSMOE_LLM_MODEL.",
        )
    listening = _Listening(model)
    answer = generate_structured(listening, QUESTION, SampleReply)
    return LanguageModelCheck(model.name, answer, listening.reasoned, model.usage)
