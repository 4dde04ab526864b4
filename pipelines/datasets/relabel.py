"""Annotations under the class book's names, whatever a class was called when somebody drew a box."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from dsmoe_core.errors import ClassBookError
from dsmoe_core.schema import LabelledImage
from prompts.class_book import ClassBook


def in_book_classes(labelled: LabelledImage, resolve: Callable[[str], str]) -> LabelledImage:
    """The same annotations under the class book's own names, which ``resolve`` finds."""
    return replace(
        labelled, annotations=tuple(replace(a, label=resolve(a.label)) for a in labelled.annotations)
    )


def in_published_classes(labelled: LabelledImage, book: ClassBook) -> LabelledImage:
    """The same for people to look at: classes that the book has no more keep their old names."""

    def shown(name: str) -> str:
        try:
            return book.resolve(name)
        except ClassBookError:
            return name

    return in_book_classes(labelled, shown)
