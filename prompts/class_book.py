"""The class book: the classes of a detector with their descriptions and taxonomy, in one YAML file.

A ``ClassBook`` is immutable: ``with_description`` returns a new one. Its version is a hash of its content, so
two books with the same content have the same version.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import ValidationError, model_validator

from dsmoe_core.atomic import atomic_write
from dsmoe_core.config import Frozen
from dsmoe_core.errors import ClassBookError
from dsmoe_core.schema import ClassText, Vocabulary
from prompts.class_entry import ClassEntry, InnerNode, Source, normalized_name
from prompts.validation import InconsistentError, LengthCheck, inconsistencies, overlong_texts
from prompts.yaml_lines import Location, Mistake, class_book_error, read_yaml


class ClassBook(Frozen):
    """Classes in the detector's order, and the inner nodes of the taxonomy above them."""

    inner: tuple[InnerNode, ...] = ()
    classes: tuple[ClassEntry, ...]

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        mistakes = list(inconsistencies(self.inner, self.classes))
        if mistakes:
            raise InconsistentError(mistakes)
        return self

    @classmethod
    def load(cls, path: Path, *, check_length: LengthCheck | None = None) -> ClassBook:
        """Read a class book from a file; see ``parse``.

        Raises:
            ClassBookError: the file is missing, not YAML, or wrong; the message names every wrong class with
                its line.
        """
        return cls.parse(read_book_text(path), str(path), check_length=check_length)

    @classmethod
    def parse(cls, text: str, source: str, *, check_length: LengthCheck | None = None) -> ClassBook:
        """Read a class book from YAML text.

        Args:
            source: name of the file or version, for messages.
            check_length: reports a text that is longer than the text encoder reads; None: lengths are not
                checked.

        Raises:
            ClassBookError: the text is not YAML, is wrong, or has a description that is too long; the message
                names every wrong class with its line.
        """
        content, lines = read_yaml(text, source)
        book = cls.from_content(content, source, lines)
        mistakes = (
            [] if check_length is None else list(overlong_texts(book.inner, book.classes, check_length))
        )
        if mistakes:
            raise class_book_error(source, mistakes, lines, "Shorten these texts.")
        return book

    @classmethod
    def from_content(
        cls, content: object, source: str, lines: Mapping[Location, int] | None = None
    ) -> ClassBook:
        """Build a class book from plain values.

        Args:
            content: a dict with the keys ``classes`` and, optionally, ``inner``.
            source: name of the file or version, for messages.
            lines: line number of each part of the content, where it was read from a file.

        Raises:
            ClassBookError: the content is wrong; the message has ``source`` and every mistake with its class
                and line.
        """
        if not isinstance(content, dict):
            raise ClassBookError(
                f"the class book {source} holds {type(content).__name__}; expected 'classes' and 'inner'",
                "Start a new one with `dsmoe init`, or correct the file.",
            )
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            mistakes: list[Mistake] = []
            for detail in error.errors():
                cause = detail.get("ctx", {}).get("error")
                if isinstance(cause, InconsistentError):
                    mistakes += cause.mistakes
                else:
                    mistakes.append(_as_mistake(detail["loc"], detail["msg"], content))
            raise class_book_error(source, mistakes, lines or {}) from None

    def as_yaml(self) -> str:
        """The book as YAML text; equal books give equal text."""
        return yaml.safe_dump(self._content(), sort_keys=False, allow_unicode=True, width=100)

    def save(self, path: Path) -> None:
        """Write the book to a file, atomically.

        Raises:
            PrerequisiteError: the disk is full.
        """
        atomic_write(path, self.as_yaml())

    @cached_property
    def version(self) -> str:
        """Hash of the content, 12 hexadecimal digits."""
        raw = json.dumps(self._content(), ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(raw.encode("utf-8")).hexdigest()[:12]

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in the detector's order."""
        return tuple(entry.name for entry in self.classes)

    def vocabulary(self) -> Vocabulary:
        """The texts of the book in the form that the detector takes."""
        return Vocabulary(
            classes=tuple(ClassText(c.name, c.description, c.parent, c.paraphrases) for c in self.classes),
            inner=tuple(ClassText(n.name, n.description, n.parent) for n in self.inner),
            version=self.version,
        )

    def resolve(self, name: str) -> str:
        """Class name for a name or alias, compared as ``normalized_name`` does.

        Raises:
            ClassBookError: no class has this name or alias.
        """
        resolved = self._by_name.get(normalized_name(name))
        if resolved is None:
            raise ClassBookError(
                f"class {name!r} is not in the class book, which has {', '.join(self.names)}",
                "Add it to the class book, or an alias for it.",
            )
        return resolved

    def entry(self, name: str) -> ClassEntry:
        """Class entry for a name or alias.

        Raises:
            ClassBookError: no class has this name or alias.
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
        """A new book with another description of one class.

        The old paraphrases are replaced; the attributes stay unless new ones are given.

        Raises:
            ClassBookError: there is no such class, or the text is empty, too long or has control characters.
        """
        old = self.entry(name)
        content = self._content()
        for raw in content["classes"]:
            if raw["name"] == old.name:
                raw.update(description=text, source=source, author=author, paraphrases=list(paraphrases))
                raw.update({} if attributes is None else {"attributes": dict(attributes)})
        return self.from_content(content, "as changed")

    @cached_property
    def _by_name(self) -> dict[str, str]:
        aliases = {normalized_name(alias): c.name for c in self.classes for alias in c.aliases}
        return aliases | {normalized_name(c.name): c.name for c in self.classes}

    def _content(self) -> dict[str, list[dict[str, Any]]]:
        return book_content(self.inner, self.classes)


def book_content(
    inner: Iterable[InnerNode], classes: Iterable[ClassEntry]
) -> dict[str, list[dict[str, Any]]]:
    """The plain values of a class book's file, without empty fields."""
    raw_inner, raw_classes = ([_dump(node) for node in nodes] for nodes in (inner, classes))
    return {"inner": raw_inner, "classes": raw_classes} if raw_inner else {"classes": raw_classes}


def read_book_text(path: Path) -> str:
    """Text of a class book's file.

    Raises:
        ClassBookError: the file cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ClassBookError(f"the class book {path} cannot be read: {error}", "Check the path.") from None


def _dump(node: Frozen) -> dict[str, Any]:
    return {key: value for key, value in node.model_dump(mode="json").items() if value}


def _as_mistake(location: Location, message: str, content: dict[str, Any]) -> Mistake:
    """One of pydantic's errors, with the class or inner node that it belongs to."""
    message = message.removeprefix("Value error, ")
    location = tuple(part for part in location if part != "[key]")
    if len(location) < 2 or not isinstance(location[1], int):
        return Mistake(location, f"{'.'.join(map(str, location))}: {message}" if location else message)
    section, number, *rest = location
    try:
        name = repr(content[str(section)][number]["name"])
    except (KeyError, TypeError, IndexError):
        name = f"number {int(number) + 1}"
    kind = "class" if section == "classes" else "inner node"
    return Mistake(location, f"{kind} {name}: {'.'.join(map(str, rest)) or 'it'}: {message}")
