"""The parts of a class book: classes and the inner nodes of the taxonomy, with the limits of their texts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from dsmoe_core.config import Frozen
from dsmoe_core.plain_text import unprintable

ATTRIBUTES = ("shape", "edge", "texture", "orientation", "size", "contrast", "place")
"""Visual attributes of a class."""
Source = Literal["name", "glossary", "person", "model"]


def printable(text: str) -> str:
    """Return the text unchanged if it has printable characters only.

    Raises:
        ValueError: the text has a control character.
    """
    if character := unprintable(text):
        raise ValueError(f"has the control character {character!r}; expected plain text on one line")
    return text


def normalized_name(name: str) -> str:
    """A name in the form in which names are compared: without case, spaces, underscores and hyphens."""
    return "".join(c for c in name.casefold() if c not in " _-")


def _known_attribute(name: str) -> str:
    if name not in ATTRIBUTES:
        raise ValueError(f"this attribute is unknown; allowed are {', '.join(ATTRIBUTES)}")
    return name


Name = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=80), AfterValidator(printable)
]
# The packaged text encoder reads about 800 characters of prose. Its exact limit is in word pieces and is
# checked by the ``check_length`` of ``ClassBook.parse``.
Text = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=800), AfterValidator(printable)
]
Attribute = Annotated[str, AfterValidator(_known_attribute)]


class InnerNode(Frozen):
    """A group of classes in the taxonomy; annotators cannot choose it."""

    name: Name
    description: Text
    parent: Name | None = None


class ClassEntry(Frozen):
    """One class with its description.

    Attributes:
        description: what the defect looks like; the detector's text embedding is made of it.
        attributes: the same in parts (see ATTRIBUTES), for people and for the language model.
        confusable: names of the classes that are easily confused with it.
        aliases: other names of the class, in any language.
        paraphrases: other wordings of the description; training samples from them.
        source: where the description is from: the bare name, the built-in glossary, a person or a language
            model.
        author: name of the person or of the model.
    """

    name: Name
    description: Text
    parent: Name | None = None
    attributes: dict[Attribute, Text] = Field(default_factory=dict)
    confusable: tuple[Name, ...] = ()
    aliases: tuple[Name, ...] = ()
    paraphrases: tuple[Text, ...] = ()
    source: Source = "person"
    author: str = Field("", max_length=200)
