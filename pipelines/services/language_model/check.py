"""Checks with one request whether a language model returns structured output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints

from dsmoe_core.errors import LanguageModelError
from prompts.llm import Message, OpenAIModel, Reply, Usage, generate_structured


class SampleReply(BaseModel):
    """Schema of the reply to the check."""

    defect: Annotated[str, StringConstraints(min_length=1, max_length=60)]
    visible: bool
    severity: int = Field(ge=0, le=9)


PROMPT = [
    Message("system", "Answer with one JSON object of the given schema and nothing else."),
    Message(
        "user",
        "A scratch crosses a copper pad from edge to edge. "
        "Which defect is it, can it be seen, and how severe is it from 0 to 9?",
    ),
]


@dataclass(frozen=True, slots=True)
class LanguageModelCheck:
    """Result of the check.

    Attributes:
        model: name on the server.
        answer: reply that fits the schema.
        reasoned: the server returned reasoning separately from the answer.
        usage: replies, tokens and seconds.
    """

    model: str
    answer: SampleReply
    reasoned: bool
    usage: Usage


class _ReasoningRecorder:
    """Wraps a model and records whether a reply had separate reasoning."""

    def __init__(self, model: OpenAIModel) -> None:
        self.name = model.name
        self._model = model
        self.reasoned = False

    def reply(self, messages: Sequence[Message], schema: type[BaseModel]) -> Reply:
        reply = self._model.reply(messages, schema)
        self.reasoned |= bool(reply.reasoning and reply.content)  # else the reasoning is the answer
        return reply


def check_language_model(model: OpenAIModel) -> LanguageModelCheck:
    """Send one request and validate the reply.

    Raises:
        LanguageModelError: the server cannot be reached, does not serve the model, or no reply is valid.
    """
    served = model.served()
    if served and model.name not in served:  # a server that lists no models may serve it
        raise LanguageModelError(
            f"the server does not serve {model.name!r}; it serves {', '.join(map(repr, served[:9]))}",
            "Name one of these with --model or DSMOE_LLM_MODEL.",
        )
    recorder = _ReasoningRecorder(model)
    answer = generate_structured(recorder, PROMPT, SampleReply)
    return LanguageModelCheck(model.name, answer, recorder.reasoned, model.usage)
