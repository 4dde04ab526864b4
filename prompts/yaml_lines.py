"""YAML that remembers where things stand, so that a mistake is told with its line. Safe loader only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import yaml

from dsmoe_core.errors import ClassBookError

Location = tuple[int | str, ...]
"""Keys and indices from the top of a document, such as ("classes", 3, "aliases", 0)."""
_DEEPEST = 6  # a class book needs four; what lies deeper is a mistake, told with the line above it


class MarkedYaml(NamedTuple):
    """A document's content, and the line, from 1, of each key and item in it."""

    content: object
    lines: Mapping[Location, int]


class Mistake(NamedTuple):
    """What is wrong, in words, and where."""

    location: Location
    message: str


def read_yaml(text: str, source: str) -> MarkedYaml:
    """Parse a document once, for its content and its lines.

    Raises:
        ClassBookError: it is no YAML, or a mapping has a key twice, which YAML would let pass in silence.
    """
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            found = list(_marked(node, ())) if node is not None else []
            content = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # ValueError: a day such as 2026-02-31
        raise ClassBookError(
            f"{place(source, _line_of(error, text))} is not YAML: {_reason(error)}",
            "Correct it there.",
        ) from None
    lines: dict[Location, int] = {}
    for location, line in found:
        if location in lines:
            raise ClassBookError(
                f"{place(source, line)}: {location[-1]!r} comes twice, first on line {lines[location]}",
                "Remove one.",
            )
        lines[location] = line
    return MarkedYaml(content, lines)


def place(source: str, line: int | None) -> str:
    """A class book and a line in it, for the beginning of a message."""
    return f"the class book {source}" + ("" if line is None else f", line {line}")


def line_of(location: Location, lines: Mapping[Location, int]) -> int | None:
    """The line of a location, or of the nearest thing above it that has one."""
    for end in range(len(location), 0, -1):
        if location[:end] in lines:
            return lines[location[:end]]
    return None


def wrong(
    source: str,
    mistakes: list[Mistake],
    lines: Mapping[Location, int],
    remedy: str = "Correct the class book.",
) -> ClassBookError:
    """The error that tells all mistakes at once, each with its line where that is known."""
    if len(mistakes) == 1:
        ((location, message),) = mistakes
        return ClassBookError(f"{place(source, line_of(location, lines))}: {message}", remedy)
    said = []
    for location, message in sorted(mistakes, key=lambda m: line_of(m.location, lines) or 0):
        line = line_of(location, lines)
        said.append(message if line is None else f"line {line}: {message}")
    return ClassBookError(f"the class book {source} has {len(said)} mistakes: {'; '.join(said)}", remedy)


def _marked(node: yaml.Node, location: Location) -> Iterator[tuple[Location, int]]:
    if len(location) >= _DEEPEST:
        return
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                below = (*location, str(key.value))
                yield below, key.start_mark.line + 1
                yield from _marked(value, below)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield (*location, number), item.start_mark.line + 1
            yield from _marked(item, (*location, number))


def _reason(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        return ", ".join(part for part in (error.context, error.problem) if part)
    return " ".join(str(error).split())


def _line_of(error: Exception, text: str) -> int | None:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return int(error.problem_mark.line) + 1
    if isinstance(error, yaml.reader.ReaderError):
        return text.count("\n", 0, int(error.position)) + 1
    return None
