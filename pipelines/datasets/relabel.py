"""Annotations under the class book's names, whatever a class was called when somebody drew a box."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from dsmoe_core.errors import ClassBookError
from dsmoe_core.schema import LabelledPicture
from prompts.class_book import ClassBook


def in_the_books_words(labelled: LabelledPicture, resolve: Callable[[str], str]) -> LabelledPicture:
    """The same annotations under the class book's own names, which ``resolve`` finds."""
    return replace(
        labelled, annotations=tuple(replace(a, label=resolve(a.label)) for a in labelled.annotations)
    )


def as_shown(labelled: LabelledPicture, book: ClassBook) -> LabelledPicture:
    """The same for people to look at: classes that the book has no more keep their old names."""

    def shown(name: str) -> str:
        try:
            return book.resolve(name)
        except ClassBookError:
            return name

    return in_the_books_words(labelled, shown)
