"""Drafting of class descriptions with a language model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dsmoe_core.errors import ClassBookError, LanguageModelError
from prompts.class_entry import ATTRIBUTES
from prompts.draft import draft
from prompts.glossary import glossary_book
from prompts.llm import FakeModel, LanguageModel

from .conftest import ScriptEntry

BOOK = glossary_book(["spur", "short", "odd_patch"])


def answer(text: str, **changes: Any) -> dict[str, Any]:
    return {
        "description": f"{text}: a description of what is seen",
        "attributes": {name: f"{name} of it" for name in ATTRIBUTES},
        "paraphrases": [f"{text}, said in another way, number {i}" for i in range(4)],
        **changes,
    }


def test_drafts_go_into_a_new_book(scripted: Callable[[list[ScriptEntry]], LanguageModel]) -> None:
    before = BOOK.version
    calls: list[tuple[int, int]] = []
    book = draft(
        BOOK,
        ["odd patch", "spur", "odd_patch"],
        scripted([answer("one"), answer("two")]),
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(1, 2), (2, 2)]
    entry = book.entry("odd_patch")
    assert entry.description == "one: a description of what is seen"
    assert (entry.source, entry.author, len(entry.paraphrases)) == ("model", "tiny", 4)
    assert entry.attributes["place"] == "place of it"
    assert book.entry("spur").description.startswith("two")
    assert book.entry("short") == BOOK.entry("short")
    assert BOOK.version == before


def test_prompt_contains_class_taxonomy_facts_and_notes() -> None:
    model = FakeModel([answer("one"), answer("two")])
    facts, notes = {"Odd-Patch": "12 px wide, at the rim"}, {"spur": "ends in a tip"}
    draft(BOOK, ["spur", "odd_patch"], model, facts=facts, notes=notes)
    first, second = (messages[1].text for messages in model.requests)
    assert "'spur'" in first
    assert "burr" in first
    assert "belongs to 'excess_copper'" in first
    assert BOOK.entry("short").description in first
    assert "12 px" not in first
    assert "ends in a tip" in first
    assert "ends in a tip" not in second
    assert "odd patch" not in second  # a bare name is no description
    assert "12 px wide, at the rim" in second
    assert "- spur: one: a description" in second


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"description": "short"}, "description"),
        ({"description": 5}, "description"),
        ({"paraphrases": ["only one of these, which is too few"]}, "paraphrases"),
        ({"attributes": {}}, r"attributes\.shape"),
        ({"opinion": "x"}, "opinion"),
        ({"description": "a text with \a a bell in it"}, r"description.*\\x07"),
    ],
)
def test_invalid_draft_is_refused_and_the_book_is_not_changed(
    scripted: Callable[[list[ScriptEntry]], LanguageModel], changes: dict[str, Any], field: str
) -> None:
    before = BOOK.version
    with pytest.raises(LanguageModelError, match=field):
        draft(BOOK, ["spur", "short"], scripted([answer("one"), *[answer("two", **changes)] * 3]))
    assert BOOK.version == before


def test_line_breaks_and_tabs_become_spaces() -> None:
    model = FakeModel([answer("one", description="a thorn\n attached\tto a track")])
    assert draft(BOOK, ["spur"], model).entry("spur").description == "a thorn attached to a track"


def test_unknown_class_is_refused_before_the_first_request() -> None:
    model = FakeModel([answer("one")])
    with pytest.raises(ClassBookError, match="'dent'"):
        draft(BOOK, ["spur", "dent"], model)
    with pytest.raises(ClassBookError, match="'dent'"):
        draft(BOOK, ["spur"], model, facts={"dent": "round"})
    with pytest.raises(ClassBookError, match="'dent'"):
        draft(BOOK, ["spur"], model, notes={"dent": "round"})
    assert model.requests == []
