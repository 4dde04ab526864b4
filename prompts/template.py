"""What we ask a language model for, and the shape its answer must have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BeforeValidator, Field, StringConstraints

from dsmoe_core.config import Frozen
from prompts.class_book import ClassBook, ClassEntry, printable
from prompts.llm import Message


def _one_line(text: object) -> object:
    """Small models break lines and write tabs, which a class book cannot hold and which mean nothing."""
    return printable(" ".join(text.split())) if isinstance(text, str) else text


_WORD = r"[^\s\x00-\x1f\x7f-\x9f]+"
WORDS = rf"^{_WORD}( {_WORD})*$"
"""For the server, which then keeps the model from writing what ``printable`` refuses."""
Sentence = Annotated[
    str,
    StringConstraints(min_length=20, max_length=400, pattern=WORDS),
    BeforeValidator(_one_line),
]
_Phrase = Annotated[
    str,
    StringConstraints(min_length=2, max_length=120, pattern=WORDS),
    BeforeValidator(_one_line),
]

_ROLE = (
    "You describe defects for an inspector who looks at images of industrial parts. Say only what can be "
    "seen: shape, edge, texture, orientation, size, contrast, place. No causes, no consequences, no "
    "measurements that were not given to you. Say what tells the defect from those it is confused with. "
    "Answer in English, as one JSON object of the given schema."
)


class DraftedAttributes(Frozen):
    """The visual attributes of one class."""

    shape: _Phrase
    edge: _Phrase
    texture: _Phrase
    orientation: _Phrase
    size: _Phrase
    contrast: _Phrase
    place: _Phrase


class Draft(Frozen):
    """A model's answer: one class in words."""

    description: Sentence
    attributes: DraftedAttributes
    paraphrases: tuple[Sentence, ...] = Field(min_length=3, max_length=6)


def draft_messages(
    book: ClassBook, entry: ClassEntry, facts: str | None = None, note: str | None = None
) -> list[Message]:
    """The question for one class: its name, its siblings to tell it apart from, and what is known of it.

    Args:
        facts: what was measured of this class, in words.
        note: what an expert says of it; the model is told to keep to both, and to this one first.
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
        lines += [f"- {c.name}: {c.description}" for c in _closest_first(entry, others)]
    if facts:
        lines.append(f"Measured on the annotated boxes, keep to it: {facts}")
    if note:
        lines.append(expert_says(note))
    lines.append(
        "Give a description of 15 to 40 words, the attributes, and 4 paraphrases of the description."
    )
    return [Message("system", _ROLE), Message("user", "\n".join(lines))]


def expert_says(note: str) -> str:
    """What a domain expert noted of a class, as a language model is told it."""
    return f"An expert says, and it outweighs all else: {note}"


def _closest_first(entry: ClassEntry, others: Sequence[ClassEntry]) -> list[ClassEntry]:
    """Siblings before the rest, in the book's order."""
    return sorted(others, key=lambda c: c.parent != entry.parent)
