"""Text from outside, such as titles and names of classes and files, for the place where it is shown.

``visible`` is for the terminal, ``escape_markdown`` and ``markdown_code`` are for Markdown. HTML pages are
rendered with Jinja's autoescape, and XML attributes are written with ``quoteattr``.
"""

from __future__ import annotations

import re
import unicodedata

WORD_JOINER = "\u2060"
"""Invisible and of no width; splits sequences that Markdown renderers replace even where they are escaped."""
_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that change the direction of all text after them."""
_UNPRINTABLE = frozenset(("Cc", "Cs", "Zl", "Zp"))  # controls, surrogates, line and paragraph separators
_MARKUP = re.compile(
    r"[\\`*{}\[\]()#!|~:$<>&]"
    r"|(?<![^\W_])_|_(?![^\W_])|(?<!\w)[+-]|[+-](?!\w)"  # within a word these are no markup
)
_LIST_NUMBER = re.compile(r"^(\d+)([.)])(?=\s|$)")
_SHORTCODE = re.compile(r":(?=[\w+-]+:)")
_TYPOGRAPHY = re.compile(r"(?<!\S)(<->|->|<-|--|>=|<=|~=)(?!\S)")


def unprintable(text: str) -> str | None:
    """The first character that cannot be shown on one line; None where there is none.

    Marks that scripts and emoji need, such as the zero-width joiner and the right-to-left mark, are allowed.
    """
    return next((c for c in text if _is_unprintable(c)), None)


def visible(text: str) -> str:
    r"""The text with control characters as escapes such as ``\x1b``; line breaks and tabs are kept."""
    if text.isprintable():
        return text
    return "".join(_escape_sequence(c) if _is_unprintable(c) and c not in "\n\t" else c for c in text)


def on_one_line(text: str) -> str:
    """The text as ``visible`` shows it, with every line break as one space."""
    return visible(" ".join(text.splitlines()))


def escape_markdown(text: str) -> str:
    r"""The text on one line, in Markdown that is rendered as the same text (CommonMark, GFM, Streamlit).

    Backslashes do not stop replacements that a renderer makes in the parsed text, such as ``:smile:``. Those
    are split by an invisible character.
    """
    line = on_one_line(text).strip()
    line = _SHORTCODE.sub(f":{WORD_JOINER}", line)
    line = _TYPOGRAPHY.sub(lambda match: match[0][0] + WORD_JOINER + match[0][1:], line)
    return _LIST_NUMBER.sub(r"\1\\\2", _MARKUP.sub(r"\\\g<0>", line))


def markdown_code(text: str) -> str:
    """The text on one line as Markdown code, in which no character is markup; not for cells of a table."""
    line = on_one_line(text)
    fence = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    padding = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{padding}{line}{padding}{fence}"


def _is_unprintable(character: str) -> bool:
    return character in _BIDI_CONTROLS or unicodedata.category(character) in _UNPRINTABLE


def _escape_sequence(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
