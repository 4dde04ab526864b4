"""Names that are markup somewhere: console, Markdown, HTML, XML, Vega, templates. All tests use this list."""

from __future__ import annotations

SHORT = (
    "line [/3]",
    "[red]",
    "a|b",
    "*x*",
    "__init__",
    "<b>bold</b>",
    "&amp;",
    "$x$ $y$",
    ":smile: :red[x]",
    ":material/home:",
    "a.b[0]",
    "a -> b -- c",
    "# 1. - x",
    "1. first",
    "{{ 7 }} {% if %}",
    "`code`",
    "[a](javascript:alert(1))",
    "back\\slash",
    "quotes ' \" `",
    "\u05d0\u200f b",
    "crack \U0001f525\U0001f469\u200d\U0001f527",
    "%s %d {name}",
    "](]",
    "~~gone~~",
)
"""Names of up to 50 characters that are valid for classes, titles and files."""

IMAGE_TAG = "<img src=x onerror=alert(1)>"
LONG = "very long " * 7 + "end"
NAMES = (*SHORT, IMAGE_TAG, LONG)
CLASS_NAMES = tuple(name for name in NAMES if not name.startswith("$"))
"""Names that are valid for classes: Label Studio reads a name with a dollar first as a reference."""

GROUPS = [CLASS_NAMES[first : first + 3] for first in range(0, len(CLASS_NAMES) - 2, 3)]
"""The names in groups of three, for tests that take long."""

CONTROL = ("two\nlines", "clear\x1b[2J", "bell\x07", "turn\u202eround", "line\u2028separator")
"""Names with control characters: of files, or in messages. Classes and titles may not have them."""
