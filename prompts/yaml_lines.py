"""YAML reader that keeps line numbers, so that a mistake can be reported with its line. Safe loader only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import yaml

from dsmoe_core.errors import ClassBookError

Location = tuple[int | str, ...]
"""Keys and indices from the top of a document, such as ("classes", 3, "aliases", 0)."""
_MAX_DEPTH = 6
"""A class book has four levels. Deeper nodes are mistakes and are reported with the line above them."""


class MarkedYaml(NamedTuple):
    """Content of a document, and the line, from 1, of each key and item in it."""

    content: object
    lines: Mapping[Location, int]


class Mistake(NamedTuple):
    """A mistake in a class book: where, and the message."""

    location: Location
    message: str


def read_yaml(text: str, source: str) -> MarkedYaml:
    """Parse a document.

    Raises:
        ClassBookError: the text is not YAML, or a mapping has a key twice, which YAML itself accepts.
    """
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            marks = list(_line_marks(node, ())) if node is not None else []
            content = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # ValueError: a date such as 2026-02-31
        raise ClassBookError(
            f"{_file_and_line(source, _error_line(error, text))} is not YAML: {_reason(error)}",
            "Correct the YAML at this place.",
        ) from None
    lines: dict[Location, int] = {}
    for location, line in marks:
        if location in lines:
            raise ClassBookError(
                f"{_file_and_line(source, line)}: the key {location[-1]!r} is used twice, "
                f"first on line {lines[location]}",
                "Remove one.",
            )
        lines[location] = line
    return MarkedYaml(content, lines)


def class_book_error(
    source: str,
    mistakes: list[Mistake],
    lines: Mapping[Location, int],
    remedy: str = "Correct the class book.",
) -> ClassBookError:
    """The error that reports all mistakes of a class book, each with its line where that is known."""
    if len(mistakes) == 1:
        ((location, message),) = mistakes
        return ClassBookError(f"{_file_and_line(source, _line_of(location, lines))}: {message}", remedy)
    messages = []
    for location, message in sorted(mistakes, key=lambda m: _line_of(m.location, lines) or 0):
        line = _line_of(location, lines)
        messages.append(message if line is None else f"line {line}: {message}")
    return ClassBookError(
        f"the class book {source} has {len(messages)} mistakes: {'; '.join(messages)}", remedy
    )


def _file_and_line(source: str, line: int | None) -> str:
    return f"the class book {source}" + ("" if line is None else f", line {line}")


def _line_of(location: Location, lines: Mapping[Location, int]) -> int | None:
    """Line of a location, or of its nearest parent that has one."""
    for end in range(len(location), 0, -1):
        if location[:end] in lines:
            return lines[location[:end]]
    return None


def _line_marks(node: yaml.Node, location: Location) -> Iterator[tuple[Location, int]]:
    if len(location) >= _MAX_DEPTH:
        return
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                below = (*location, str(key.value))
                yield below, key.start_mark.line + 1
                yield from _line_marks(value, below)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield (*location, number), item.start_mark.line + 1
            yield from _line_marks(item, (*location, number))


def _reason(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        return ", ".join(part for part in (error.context, error.problem) if part)
    return " ".join(str(error).split())


def _error_line(error: Exception, text: str) -> int | None:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return int(error.problem_mark.line) + 1
    if isinstance(error, yaml.reader.ReaderError):
        return text.count("\n", 0, int(error.position)) + 1
    return None
