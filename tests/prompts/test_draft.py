"""Drafting descriptions: what is asked, what is kept, and that a failure changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dsmoe_core.errors import ClassBookError, LanguageModelError
from prompts.draft import draft
from prompts.glossary import glossary_book
from prompts.llm import FakeModel, LanguageModel

from .conftest import Line

BOOK = glossary_book(["spur", "short", "odd_patch"])


def answer(text: str, **changes: Any) -> dict[str, Any]:
    parts = ("shape", "edge", "texture", "orientation", "size", "contrast", "place")
    return {
        "description": f"{text}: a description of what is seen",
        "attributes": {part: f"{part} of it" for part in parts},
        "paraphrases": [f"{text}, said in another way, number {i}" for i in range(4)],
        **changes,
    }


def test_a_draft_goes_into_a_new_book(scripted: Callable[[list[Line]], LanguageModel]) -> None:
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


def test_the_question_names_what_is_known() -> None:
    model = FakeModel([answer("one"), answer("two")])
    facts, notes = {"Odd-Patch": "12 px wide, at the rim"}, {"spur": "ends in a tip"}
    draft(BOOK, ["spur", "odd_patch"], model, facts=facts, notes=notes)
    first, second = (talk[1].text for talk in model.requests)
    assert "'spur'" in first
    assert "burr" in first
    assert "belongs to 'excess_copper'" in first
    assert BOOK.entry("short").description in first
    assert "12 px" not in first
    assert "An expert says, and it outweighs all else: ends in a tip" in first
    assert "ends in a tip" not in second
    assert "So far" not in second
    assert "12 px wide, at the rim" in second
    assert "- spur: one: a description" in second


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"description": "short"}, "description: String should have at least 20"),
        ({"description": 5}, "description: Input should be a valid string"),
        (
            {"paraphrases": ["only one of these, which is too few"]},
            "paraphrases: Tuple should have at least 3",
        ),
        ({"attributes": {}}, r"attributes.shape: Field required"),
        ({"opinion": "x"}, "opinion: Extra inputs"),
        ({"description": "a text with \a a bell in it"}, "control character"),
    ],
)
def test_a_bad_draft_leaves_the_book_alone(
    scripted: Callable[[list[Line]], LanguageModel], changes: dict[str, Any], problem: str
) -> None:
    before = BOOK.version
    with pytest.raises(LanguageModelError, match=problem):
        draft(BOOK, ["spur", "short"], scripted([answer("one"), *[answer("two", **changes)] * 3]))
    assert BOOK.version == before


def test_line_breaks_and_tabs_do_no_harm() -> None:
    said = answer("one", description="a thorn\n attached\tto a track")
    assert draft(BOOK, ["spur"], FakeModel([said])).entry("spur").description == "a thorn attached to a track"


def test_an_unknown_class_is_refused_before_anything_is_asked() -> None:
    model = FakeModel([answer("one")])
    with pytest.raises(ClassBookError, match="class 'dent' is not in the class book"):
        draft(BOOK, ["spur", "dent"], model)
    with pytest.raises(ClassBookError, match="class 'dent'"):
        draft(BOOK, ["spur"], model, facts={"dent": "round"})
    with pytest.raises(ClassBookError, match="class 'dent'"):
        draft(BOOK, ["spur"], model, notes={"dent": "round"})
    assert model.requests == []
