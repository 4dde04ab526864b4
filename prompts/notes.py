"""Notes of domain experts on classes, from a file or the command line, for prompts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import yaml

from dsmoe_core.errors import ClassBookError
from prompts.class_book import ClassBook

_REMEDY = "Write it as CLASS: TEXT."
MAX_CHARACTERS = 2000
"""Of the notes on one class; a longer prompt leaves a small model no room for its answer."""


def read_notes(book: ClassBook, file: Path | None, options: Iterable[str] = ()) -> dict[str, str]:
    """Notes by class; several notes on one class are joined, those of the file first.

    Args:
        file: YAML with a text per class or alias.
        options: values of ``--note``, each ``CLASS: TEXT``.

    Raises:
        ClassBookError: the file cannot be read, a note does not have this form or is too long, or the book
            lacks its class.
    """
    notes: dict[str, str] = {}
    for name, text in (*_read_file(file), *map(_parse_option, options)):
        resolved = book.resolve(name)
        note = " ".join(text.split())
        if not note:
            raise ClassBookError(f"the note on {name!r} is empty", _REMEDY)
        notes[resolved] = f"{notes[resolved]} {note}" if resolved in notes else note
    for name, text in notes.items():
        if len(text) > MAX_CHARACTERS:
            raise ClassBookError(
                f"the note on {name!r} has {len(text)} characters; expected at most {MAX_CHARACTERS}",
                "Shorten it to what can be seen.",
            )
    return notes


def _read_file(file: Path | None) -> list[tuple[str, str]]:
    if file is None:
        return []
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ClassBookError(f"the notes {file} cannot be read: {reason}", _REMEDY) from None
    if not isinstance(raw, dict) or not all(isinstance(text, str) for text in raw.values()):
        raise ClassBookError(f"the notes {file} are not a mapping from class name to text", _REMEDY)
    return [(str(name), text) for name, text in raw.items()]


def _parse_option(option: str) -> tuple[str, str]:
    name, colon, text = option.partition(":")
    if not colon:
        raise ClassBookError(f"the note {option!r} names no class", _REMEDY)
    return name.strip(), text
