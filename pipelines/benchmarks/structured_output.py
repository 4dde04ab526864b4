"""Share of a language model's first replies that are valid class descriptions."""

from __future__ import annotations

from itertools import cycle, islice
from typing import Any

from dsmoe_core.errors import LanguageModelError
from dsmoe_core.progress import CountCallback
from prompts.draft_prompt import Draft, draft_messages
from prompts.glossary import DOMAINS, domain
from prompts.llm import OpenAIModel, generate_structured


def measure_structured_output(model: OpenAIModel, requests: int, progress: CountCallback) -> dict[str, Any]:
    """Request drafts of the glossary's classes, each once, and count the valid replies.

    An invalid reply is not requested again. A reply that ends within the reasoning is: ``OpenAIModel.reply``
    repeats it without reasoning.

    Returns:
        The keys of words.json that concern structured output.

    Raises:
        LanguageModelError: the server failed.
    """
    books = [domain(name) for name in DOMAINS]
    drafts = islice(cycle((book, entry) for book in books for entry in book.classes), requests)
    valid, errors = 0, []
    for done, (book, entry) in enumerate(drafts, start=1):
        replies_before = model.usage.replies
        try:
            generate_structured(model, draft_messages(book, entry), Draft, attempts=1)
            valid += 1
        except LanguageModelError as error:
            if model.usage.replies == replies_before:  # the server did not reply
                raise
            errors.append(f"{entry.name}: {error.problem}"[:300])
        progress(done, requests)
    usage = model.usage
    return {
        "structured_ok": valid,
        "structured_n": requests,
        "structured_model": model.name,
        "structured_wrong": errors,
        "structured_tokens": usage.completion_tokens,
        "structured_seconds": round(usage.seconds, 1),
    }
