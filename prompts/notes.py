"""What an expert notes about classes, from a file or from the command line, for the model to keep to."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import yaml

from dsmoe_core.errors import ClassBookError
from prompts.class_book import ClassBook

_REMEDY = "Write it as CLASS: TEXT."
MAX_CHARACTERS = 2000
"""Of the notes on a class; a question that is longer leaves a small model no room to answer."""


def read_notes(book: ClassBook, file: Path | None, given: Iterable[str] = ()) -> dict[str, str]:
    """Notes by class; several of one class are put together, the file's first.

    Args:
        file: YAML, a text per class or alias.
        given: each ``CLASS: TEXT``.

    Raises:
        ClassBookError: the file cannot be read, a note is not of that shape, is too long, or the book lacks
            its class.
    """
    notes: dict[str, str] = {}
    for name, text in (*_of_file(file), *map(_of_line, given)):
        resolved = book.resolve(name)
        said = " ".join(text.split())
        if not said:
            raise ClassBookError(f"the note on {name!r} is empty", _REMEDY)
        notes[resolved] = f"{notes[resolved]} {said}" if resolved in notes else said
    for name, text in notes.items():
        if len(text) > MAX_CHARACTERS:
            raise ClassBookError(
                f"the note on {name!r} has {len(text)} characters; expected at most {MAX_CHARACTERS}",
                "Shorten it to what can be seen.",
            )
    return notes


def _of_file(file: Path | None) -> list[tuple[str, str]]:
    if file is None:
        return []
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        said = " ".join(str(error).split())
        raise ClassBookError(f"the notes {file} cannot be read: {said}", _REMEDY) from None
    if not isinstance(raw, dict) or not all(isinstance(text, str) for text in raw.values()):
        raise ClassBookError(f"the notes {file} hold no texts by class", _REMEDY)
    return [(str(name), text) for name, text in raw.items()]


def _of_line(line: str) -> tuple[str, str]:
    name, colon, text = line.partition(":")
    if not colon:
        raise ClassBookError(f"the note {line!r} names no class", _REMEDY)
    return name.strip(), text
