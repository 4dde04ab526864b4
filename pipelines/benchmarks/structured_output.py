"""How many of a language model's first replies are valid class descriptions."""

from __future__ import annotations

from itertools import cycle, islice
from typing import Any

from dsmoe_core.errors import LanguageModelError
from dsmoe_core.progress import CountCallback
from prompts.draft_prompt import Draft, draft_messages
from prompts.glossary import DOMAINS, domain
from prompts.llm import OpenAIModel, generate_structured


def measure(model: OpenAIModel, questions: int, progress: CountCallback) -> dict[str, Any]:
    """Ask for drafts of the glossary's classes, once each; a reply that is not valid is not asked for again.

    One that ended within its thoughts is: without thoughts, by ``OpenAIModel.reply`` itself.

    Raises:
        LanguageModelError: the server failed.
    """
    books = [domain(name) for name in DOMAINS]
    wanted = islice(cycle((book, entry) for book in books for entry in book.classes), questions)
    valid, wrong = 0, []
    for done, (book, entry) in enumerate(wanted, start=1):
        before = model.usage.replies
        try:
            generate_structured(model, draft_messages(book, entry), Draft, attempts=1)
            valid += 1
        except LanguageModelError as error:
            if model.usage.replies == before:  # no reply came at all
                raise
            wrong.append(f"{entry.name}: {error.problem}"[:300])
        progress(done, questions)
    spent = model.usage
    return {
        "structured_ok": valid,
        "structured_n": questions,
        "structured_model": model.name,
        "structured_wrong": wrong,
        "structured_tokens": spent.completion_tokens,
        "structured_seconds": round(spent.seconds, 1),
    }
