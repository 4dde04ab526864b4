"""Differences between two class books."""

from __future__ import annotations

from typing import Any

from prompts.book_diff import book_diff
from prompts.class_book import ClassBook
from prompts.glossary import glossary_book


def with_changed_class(**fields: Any) -> tuple[ClassBook, ClassBook]:
    """A class book, and the same with other fields of its first class."""
    old = glossary_book(["spur", "short", "open"])
    raw = old.model_dump(mode="json")
    raw["classes"][0].update(fields)
    return old, ClassBook.from_content(raw, "test")


def test_equal_books_have_no_differences() -> None:
    diff = book_diff(*with_changed_class())
    assert (diff.lines(), diff.class_list_changed, diff.reordered) == ([], False, False)


def test_every_field_of_a_class_is_compared() -> None:
    entry = glossary_book(["spur", "short", "open"]).entry("spur")
    old, new = with_changed_class(
        description="a thorn",
        parent="missing_copper",
        attributes={**entry.attributes, "edge": "sharp"},
        paraphrases=[*entry.paraphrases[1:], "a spike of metal"],
        aliases=[*entry.aliases, "thorn"],
        confusable=[],
        author="Ada",
    )
    (changed,) = book_diff(old, new).changed
    assert {change.field for change in changed.changes} == {
        "description", "parent", "edge", "paraphrase", "alias", "confusable with", "author",
    }  # fmt: skip
    lines = book_diff(old, new).lines()
    assert lines[0] == "~ class spur"
    assert f"    - paraphrase: {entry.paraphrases[0]}" in lines
    assert "    + paraphrase: a spike of metal" in lines
    assert lines.index(f"    - description: {entry.description}") + 1 == lines.index(
        "    + description: a thorn"
    )


def test_added_removed_renamed_and_reordered_classes() -> None:
    old = glossary_book(["spur", "short", "open"])
    raw = old.model_dump(mode="json")
    spur, short, _open = raw["classes"]
    short.update(name="bridge_of_copper", aliases=["short"])
    spur.update(confusable=[])
    short.update(confusable=[])
    raw["classes"] = [short, spur, {"name": "dent", "description": "a hollow"}]
    diff = book_diff(old, ClassBook.from_content(raw, "test"))
    assert (diff.added, diff.removed, diff.reordered) == (("dent",), ("open",), True)
    renamed = [(c.old_name, c.name) for c in diff.changed if c.old_name != c.name]
    assert renamed == [("short", "bridge_of_copper")]
    assert diff.class_list_changed
    (line,) = (line for line in diff.lines() if line.startswith("~ class bridge_of_copper"))
    assert line.endswith(" short")


def test_inner_nodes_are_compared() -> None:
    old = glossary_book(["spur", "short"])
    raw = old.model_dump(mode="json")
    raw["inner"][0]["description"] = "something else"
    lines = book_diff(old, ClassBook.from_content(raw, "test")).lines()
    assert lines[-1] == f"+ inner node {raw['inner'][0]['name']}: something else"
