"""Text from outside stays the same text on the terminal and in Markdown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from nasty_names import CONTROL, NAMES

from dsmoe_core.plain_text import (
    WORD_JOINER,
    escape_markdown,
    markdown_code,
    on_one_line,
    unprintable,
    visible,
)

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def shown(markdown: str) -> list[tuple[str, str]]:
    """Type and text of the inline tokens of a paragraph, neighbouring texts joined."""
    opening, inline, closing = MARKDOWN.parse(markdown)
    assert (opening.type, closing.type) == ("paragraph_open", "paragraph_close")
    tokens: list[tuple[str, str]] = []
    for token in inline.children or ():
        kind = "text" if token.type == "text_special" else token.type
        if tokens and tokens[-1][0] == kind == "text":
            tokens[-1] = ("text", tokens[-1][1] + token.content)
        else:
            tokens.append((kind, token.content))
    return tokens


@pytest.mark.parametrize("name", [*NAMES, *CONTROL])
def test_escaped_name_is_one_text_in_markdown(name: str) -> None:
    [(kind, text)] = shown(escape_markdown(name))
    assert kind == "text"
    assert text.replace(WORD_JOINER, "") == on_one_line(name).strip()


@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30).filter(str.strip))
def test_any_escaped_text_is_one_text_in_markdown(text: str) -> None:
    if not on_one_line(text).strip():
        return
    tokens = shown(escape_markdown(text))
    assert [kind for kind, _ in tokens] == ["text"]
    assert tokens[0][1].replace(WORD_JOINER, "") == on_one_line(text).strip().replace(WORD_JOINER, "")


@pytest.mark.parametrize("name", [*NAMES, *CONTROL, "``", "`a", "a`"])
def test_name_is_one_code_in_markdown(name: str) -> None:
    [(kind, text)] = shown(markdown_code(name))
    assert kind == "code_inline"
    assert text == on_one_line(name)


def test_replacements_that_ignore_backslashes_are_split() -> None:
    assert ":smile:" not in escape_markdown(":smile:").replace("\\", "")
    assert " -> " not in escape_markdown("a -> b").replace("\\", "")
    assert escape_markdown("neu_det x-1 0.16") == "neu_det x-1 0.16"


@pytest.mark.parametrize("name", CONTROL)
def test_control_characters_are_visible(name: str) -> None:
    assert unprintable(name) is not None
    assert all(unprintable(c) is None for c in visible(name) if c not in "\n\t")
    assert "\n" not in on_one_line(name)


@pytest.mark.parametrize("name", NAMES)
def test_printable_text_is_unchanged(name: str) -> None:
    assert unprintable(name) is None
    assert visible(name) == name
