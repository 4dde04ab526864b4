"""Lets a language model draft class descriptions; people own the result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dsmoe_core.errors import ClassBookError, LanguageModelError
from dsmoe_core.progress import CountCallback
from prompts.class_book import ClassBook
from prompts.llm import LanguageModel, ask
from prompts.template import Draft, draft_messages


def draft(
    book: ClassBook,
    names: Iterable[str],
    model: LanguageModel,
    facts: Mapping[str, str] | None = None,
    *,
    notes: Mapping[str, str] | None = None,
    progress: CountCallback | None = None,
) -> ClassBook:
    """A new book in which the model has described these classes; the given one stays as it is.

    All or nothing: where one class fails, there is no new book. Later classes are told apart from the new
    texts of earlier ones.

    Args:
        names: classes or aliases of the book.
        facts: per class or alias, what was measured of it, in words; the model keeps to it.
        notes: per class or alias, what an expert says of it.
        progress: called with (classes done, classes in all).

    Raises:
        ClassBookError: the book lacks a class; nothing has been asked then.
        LanguageModelError: the server failed, or gave no valid text.
    """
    wanted = list(dict.fromkeys(book.resolve(name) for name in names))
    measured, said = (
        {book.resolve(n): text for n, text in (given or {}).items()} for given in (facts, notes)
    )
    drafted = book
    for done, name in enumerate(wanted, start=1):
        messages = draft_messages(drafted, drafted.entry(name), measured.get(name), said.get(name))
        answer = ask(model, messages, Draft)
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
                f"model {model.name} wrote for {name!r} what a class book cannot hold: {error.problem}",
                "Ask anew with --fresh, or write this text yourself.",
            ) from None
        if progress is not None:
            progress(done, len(wanted))
    return drafted
