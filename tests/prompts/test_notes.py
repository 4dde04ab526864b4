"""Notes of experts: from a file, from the command line, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsmoe_core.errors import ClassBookError
from prompts.glossary import glossary_book
from prompts.notes import MAX_CHARACTERS, read_notes

BOOK = glossary_book(["spur", "mouse_bite"])


def test_notes_of_both_kinds_are_put_together_under_the_class_s_name(tmp_path: Path) -> None:
    file = tmp_path / "notes.yaml"
    file.write_text("Mouse-Bite: |\n  a bite: half round,\n  at the rim\nspur: pointed\n")
    assert read_notes(BOOK, file, ["mousebite:  never closed: open to one side "]) == {
        "mouse_bite": "a bite: half round, at the rim never closed: open to one side",
        "spur": "pointed",
    }
    assert read_notes(BOOK, None) == {}


@pytest.mark.parametrize(
    ("note", "problem"),
    [
        ("pointed", "names no class"),
        ("dent: round", "class 'dent' is not in the class book"),
        ("spur:  ", "the note on 'spur' is empty"),
        ("spur: " + "x" * (MAX_CHARACTERS + 1), "has 2001 characters; expected at most 2000"),
    ],
)
def test_a_note_that_cannot_be_used_is_named(note: str, problem: str) -> None:
    with pytest.raises(ClassBookError, match=problem):
        read_notes(BOOK, None, [note])


@pytest.mark.parametrize("text", ["- spur", "spur: [pointed]", "spur: {", "spur: \xff"])
def test_a_file_that_holds_no_notes_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "notes.yaml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ClassBookError, match=r"notes\.yaml (cannot be read|hold no texts)"):
        read_notes(BOOK, file)
    with pytest.raises(ClassBookError, match=r"gone\.yaml cannot be read"):
        read_notes(BOOK, tmp_path / "gone.yaml")
