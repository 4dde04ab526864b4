"""The class book: what each defect looks like, in words, in one YAML file that people own.

A book never changes: ``with_description`` gives a new one. Its version is a hash of its content, so that two
books that say the same are the same version wherever they lie.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, Field, StringConstraints, ValidationError, model_validator

from dsmoe_core.atomic import atomic_write
from dsmoe_core.config import Frozen
from dsmoe_core.errors import ClassBookError
from dsmoe_core.schema import ClassText, Vocabulary
from prompts.validation import CutEdges, InconsistentError, inconsistencies, plain, texts_cut
from prompts.yaml_lines import Location, Mistake, read_yaml, wrong

__all__ = ["ATTRIBUTES", "ClassBook", "ClassEntry", "InnerNode", "Source", "book_text", "checked", "plain"]

ATTRIBUTES = ("shape", "edge", "texture", "orientation", "size", "contrast", "place")
"""What is said of how a class looks, apart from its description."""
Source = Literal["name", "glossary", "person", "model"]


def printable(text: str) -> str:
    """The same text.

    Raises:
        ValueError: it has a control character.
    """
    if odd := [character for character in text if not character.isprintable()]:
        raise ValueError(f"has the control character {odd[0]!r}; expected plain text on one line")
    return text


Name = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=80), AfterValidator(printable)
]
# Of prose, the packaged encoder reads some 800 characters. Its real limit is in word pieces and is known to
# those who know the encoder: see ``cut``.
Text = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=800), AfterValidator(printable)
]


def _attribute(name: str) -> str:
    if name not in ATTRIBUTES:
        raise ValueError(f"this attribute is unknown; allowed are {', '.join(ATTRIBUTES)}")
    return name


Attribute = Annotated[str, AfterValidator(_attribute)]


class InnerNode(Frozen):
    """A group of classes in the taxonomy; annotators never choose it."""

    name: Name
    description: Text
    parent: Name | None = None


class ClassEntry(Frozen):
    """One class.

    Attributes:
        description: what is seen, the text the detector goes by.
        attributes: the same in parts (see ATTRIBUTES), for people and for the language model.
        confusable: names of the classes that it is easily taken for.
        aliases: other names for it, in any language.
        paraphrases: other ways to say the description; training draws from them.
        source: who wrote it: nobody yet (only its name), our glossary, a person or a language model.
        author: the person's or model's name.
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


class ClassBook(Frozen):
    """Classes in their order (which is the detector's), and the inner nodes above them."""

    inner: tuple[InnerNode, ...] = ()
    classes: tuple[ClassEntry, ...]

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        mistakes = list(inconsistencies(self))
        if mistakes:
            raise InconsistentError(mistakes)
        return self

    @classmethod
    def load(cls, path: Path, *, cut: CutEdges | None = None) -> ClassBook:
        """Reads a book; see ``parsed``.

        Raises:
            ClassBookError: missing, no YAML, or wrong; names every wrong class and its line at once.
        """
        return cls.parsed(book_text(path), str(path), cut=cut)

    @classmethod
    def parsed(cls, text: str, source: str, *, cut: CutEdges | None = None) -> ClassBook:
        """The book that this YAML holds.

        Args:
            source: what the text is of, for the message.
            cut: knows how much of a text is read; None: whoever reads the book reads all of it.

        Raises:
            ClassBookError: no YAML, or wrong, or a text would be cut; names every wrong class and its line.
        """
        content, lines = read_yaml(text, source)
        book = checked(content, source, lines)
        mistakes = list(texts_cut(book, cut)) if cut is not None else []
        if mistakes:
            raise wrong(source, mistakes, lines, "Say it in fewer words.")
        return book

    def as_yaml(self) -> str:
        """The book as it stands in its file; the same book always gives the same text."""
        return yaml.safe_dump(self._content(), sort_keys=False, allow_unicode=True, width=100)

    def save(self, path: Path) -> None:
        """Writes the book, whole or not at all.

        Raises:
            PrerequisiteError: the disk is full.
        """
        atomic_write(path, self.as_yaml())

    @classmethod
    def from_glossary(cls, names: Iterable[str]) -> ClassBook:
        """A book of these classes with our built-in descriptions.

        A name keeps its spelling; the glossary is searched by its names and aliases, first in the domain that
        knows most of the names. A class it does not know gets its bare name for a description, source "name".

        Raises:
            ClassBookError: no name, or one twice.
        """
        from prompts.glossary import entries_for  # here, as the glossary is itself made of class books

        wanted = list(names)
        inner, classes = entries_for(wanted)
        raw = {"inner": [_dumped(n) for n in inner], "classes": [_dumped(c) for c in classes]}
        return checked(raw, "made of the names " + (", ".join(wanted) or "(none)"))

    @cached_property
    def version(self) -> str:
        """Hash of the content, 12 hexadecimal digits."""
        raw = json.dumps(self._content(), ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(raw.encode("utf-8")).hexdigest()[:12]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(entry.name for entry in self.classes)

    def vocabulary(self) -> Vocabulary:
        """What the detector needs of this book."""
        return Vocabulary(
            classes=tuple(ClassText(c.name, c.description, c.parent, c.paraphrases) for c in self.classes),
            inner=tuple(ClassText(n.name, n.description, n.parent) for n in self.inner),
            version=self.version,
        )

    def resolve(self, name: str) -> str:
        """The class of this name or alias; case, spaces, underscores and hyphens do not matter.

        Raises:
            ClassBookError: no class has it.
        """
        found = self._by_name.get(plain(name))
        if found is None:
            raise ClassBookError(
                f"class {name!r} is not in the class book, which has {', '.join(self.names)}",
                "Add it to the class book, or an alias for it.",
            )
        return found

    def entry(self, name: str) -> ClassEntry:
        """The class of this name or alias.

        Raises:
            ClassBookError: no class has it.
        """
        return self.classes[self.names.index(self.resolve(name))]

    def with_description(
        self,
        name: str,
        text: str,
        source: Source,
        author: str,
        *,
        paraphrases: Iterable[str] = (),
        attributes: dict[str, str] | None = None,
    ) -> ClassBook:
        """A new book in which this class has another description.

        Old paraphrases go, as they say what the old text said; attributes stay unless new ones are given.

        Raises:
            ClassBookError: no such class, or the text is empty, too long or has control characters.
        """
        old = self.entry(name)
        content = self._content()
        for raw in content["classes"]:
            if raw["name"] == old.name:
                raw.update(description=text, source=source, author=author, paraphrases=list(paraphrases))
                raw.update({} if attributes is None else {"attributes": dict(attributes)})
        return checked(content, "as changed")

    @cached_property
    def _by_name(self) -> dict[str, str]:
        aliases = {plain(alias): c.name for c in self.classes for alias in c.aliases}
        return aliases | {plain(c.name): c.name for c in self.classes}

    def _content(self) -> dict[str, list[dict[str, Any]]]:
        inner, classes = ([_dumped(n) for n in nodes] for nodes in (self.inner, self.classes))
        return {"inner": inner, "classes": classes} if inner else {"classes": classes}


def _dumped(node: Frozen) -> dict[str, Any]:
    """As it stands in the file: without what is empty, but with its source."""
    return {key: value for key, value in node.model_dump(mode="json").items() if value}


def book_text(path: Path) -> str:
    """The text of a class book's file.

    Raises:
        ClassBookError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ClassBookError(f"the class book {path} cannot be read: {error}", "Check the path.") from None


def checked(raw: object, source: str, lines: Mapping[Location, int] | None = None) -> ClassBook:
    """The class book that this content describes.

    Args:
        source: what the content is of, for the message.
        lines: where each part of it stands, if that is known.

    Raises:
        ClassBookError: naming ``source`` and everything that is wrong, each by its class and line.
    """
    lines = lines or {}
    if not isinstance(raw, dict):
        raise ClassBookError(
            f"the class book {source} holds {type(raw).__name__}; expected 'classes' and 'inner'",
            "Start a new one with `dsmoe init`, or correct the file.",
        )
    try:
        return ClassBook.model_validate(raw)
    except ValidationError as error:
        mistakes: list[Mistake] = []
        for one in error.errors():
            cause = one.get("ctx", {}).get("error")
            if isinstance(cause, InconsistentError):
                mistakes += cause.mistakes
            else:
                mistakes.append(_said(one["loc"], one["msg"], raw))
        raise wrong(source, mistakes, lines) from None


def _said(location: Location, message: str, raw: dict[str, Any]) -> Mistake:
    message = message.removeprefix("Value error, ")
    location = tuple(part for part in location if part != "[key]")
    if len(location) < 2 or not isinstance(location[1], int):
        return Mistake(location, f"{'.'.join(map(str, location))}: {message}" if location else message)
    section, number, *rest = location
    try:
        name = repr(raw[str(section)][number]["name"])
    except (KeyError, TypeError, IndexError):
        name = f"number {int(number) + 1}"
    kind = "class" if section == "classes" else "inner node"
    return Mistake(location, f"{kind} {name}: {'.'.join(map(str, rest)) or 'it'}: {message}")
