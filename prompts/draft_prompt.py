"""Prompt and answer schema for drafting the description of a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BeforeValidator, Field, StringConstraints

from dsmoe_core.config import Frozen
from prompts.class_book import ClassBook
from prompts.class_entry import ClassEntry, printable
from prompts.llm import Message


def _one_line(text: object) -> object:
    """Replace line breaks and tabs, which small models write and a class book refuses, by spaces."""
    return printable(" ".join(text.split())) if isinstance(text, str) else text


_WORD = r"[^\s\x00-\x1f\x7f-\x9f]+"
_ONE_LINE_PATTERN = rf"^{_WORD}( {_WORD})*$"
"""Part of the JSON schema, so that the server prevents the characters that ``printable`` refuses."""
Sentence = Annotated[
    str,
    StringConstraints(min_length=20, max_length=400, pattern=_ONE_LINE_PATTERN),
    BeforeValidator(_one_line),
]
_Phrase = Annotated[
    str,
    StringConstraints(min_length=2, max_length=120, pattern=_ONE_LINE_PATTERN),
    BeforeValidator(_one_line),
]

_ROLE = (
    "You describe defects for an inspector who looks at images of industrial parts. Say only what can be "
    "seen: shape, edge, texture, orientation, size, contrast, place. No causes, no consequences, no "
    "measurements that were not given to you. Say what tells the defect from those it is confused with. "
    "Answer in English, as one JSON object of the given schema."
)


class DraftedAttributes(Frozen):
    """Visual attributes of a class in a model's answer."""

    shape: _Phrase
    edge: _Phrase
    texture: _Phrase
    orientation: _Phrase
    size: _Phrase
    contrast: _Phrase
    place: _Phrase


class Draft(Frozen):
    """A model's answer: the description of one class."""

    description: Sentence
    attributes: DraftedAttributes
    paraphrases: tuple[Sentence, ...] = Field(min_length=3, max_length=6)


def draft_messages(
    book: ClassBook, entry: ClassEntry, facts: str | None = None, note: str | None = None
) -> list[Message]:
    """Prompt for one class: its name and aliases, the other classes, and what is known about it.

    Args:
        facts: facts measured on the annotated boxes of the class.
        note: an expert's note; the prompt gives it priority over the facts.
    """
    lines = [f"Describe the defect class {entry.name!r}."]
    if entry.aliases:
        lines.append(f"It is also called: {', '.join(entry.aliases)}.")
    if entry.parent:
        parent = next(node for node in book.inner if node.name == entry.parent)
        lines.append(f"It belongs to {parent.name!r}: {parent.description}.")
    if entry.source != "name":
        lines.append(f"So far it is described as: {entry.description}")
    others = [c for c in book.classes if c.name != entry.name]
    if others:
        lines.append("It must be told apart from:")
        lines += [f"- {c.name}: {c.description}" for c in _siblings_first(entry, others)]
    if facts:
        lines.append(f"Measured on the annotated boxes, keep to it: {facts}")
    if note:
        lines.append(expert_note_line(note))
    lines.append(
        "Give a description of 15 to 40 words, the attributes, and 4 paraphrases of the description."
    )
    return [Message("system", _ROLE), Message("user", "\n".join(lines))]


def expert_note_line(note: str) -> str:
    """Line of a prompt with a domain expert's note on a class."""
    return f"An expert says, and it outweighs all else: {note}"


def _siblings_first(entry: ClassEntry, others: Sequence[ClassEntry]) -> list[ClassEntry]:
    """Classes with the same parent before the others, in the book's order."""
    return sorted(others, key=lambda c: c.parent != entry.parent)
