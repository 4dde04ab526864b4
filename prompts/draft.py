"""Drafts class descriptions with a language model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dsmoe_core.errors import ClassBookError, LanguageModelError
from dsmoe_core.progress import CountCallback
from prompts.class_book import ClassBook
from prompts.draft_prompt import Draft, draft_messages
from prompts.llm import LanguageModel, generate_structured


def draft(
    book: ClassBook,
    names: Iterable[str],
    model: LanguageModel,
    facts: Mapping[str, str] | None = None,
    *,
    notes: Mapping[str, str] | None = None,
    progress: CountCallback | None = None,
) -> ClassBook:
    """A new class book in which the model has described these classes; the given book is not changed.

    Classes are drafted one after another, and the prompt of each contains the new descriptions of those
    before it. If one class fails, no book is returned.

    Args:
        names: classes or aliases of the book.
        facts: per class or alias, facts measured on its annotated boxes.
        notes: per class or alias, an expert's note.
        progress: called with (classes done, total classes).

    Raises:
        ClassBookError: the book lacks a class; raised before the first request to the model.
        LanguageModelError: the server failed, or gave no valid text.
    """
    requested = list(dict.fromkeys(book.resolve(name) for name in names))
    facts_of, note_on = (
        {book.resolve(name): text for name, text in (texts or {}).items()} for texts in (facts, notes)
    )
    drafted = book
    for done, name in enumerate(requested, start=1):
        messages = draft_messages(drafted, drafted.entry(name), facts_of.get(name), note_on.get(name))
        answer = generate_structured(model, messages, Draft)
        try:
            drafted = drafted.with_description(
                name,
                answer.description,
                "model",
                model.name,
                paraphrases=dict.fromkeys(answer.paraphrases),
                attributes=answer.attributes.model_dump(),
            )
        except ClassBookError as error:
            raise LanguageModelError(
                f"model {model.name} wrote a text for {name!r} that is not valid in a class book: "
                f"{error.problem}",
                "Request a new one with --fresh, or write it yourself.",
            ) from None
        if progress is not None:
            progress(done, len(requested))
    return drafted
