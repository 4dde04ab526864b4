"""Notes of experts, from a file and from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsmoe_core.errors import ClassBookError
from prompts.glossary import glossary_book
from prompts.notes import MAX_CHARACTERS, read_notes

BOOK = glossary_book(["spur", "mouse_bite"])


def test_notes_of_file_and_options_are_joined_under_the_class_name(tmp_path: Path) -> None:
    file = tmp_path / "notes.yaml"
    file.write_text("Mouse-Bite: |\n  a bite: half round,\n  at the rim\nspur: pointed\n")
    assert read_notes(BOOK, file, ["mousebite:  never closed: open to one side "]) == {
        "mouse_bite": "a bite: half round, at the rim never closed: open to one side",
        "spur": "pointed",
    }
    assert read_notes(BOOK, None) == {}


@pytest.mark.parametrize(
    ("note", "value"),
    [
        ("pointed", "'pointed'"),
        ("dent: round", "'dent'"),
        ("spur:  ", "'spur'"),
        ("spur: " + "x" * (MAX_CHARACTERS + 1), "'spur' .*2001 .*2000"),
    ],
)
def test_invalid_note_is_refused(note: str, value: str) -> None:
    with pytest.raises(ClassBookError, match=value):
        read_notes(BOOK, None, [note])


@pytest.mark.parametrize("text", ["- spur", "spur: [pointed]", "spur: {", "spur: \xff"])
def test_invalid_or_missing_file_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "notes.yaml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ClassBookError, match=r"notes\.yaml"):
        read_notes(BOOK, file)
    with pytest.raises(ClassBookError, match=r"gone\.yaml"):
        read_notes(BOOK, tmp_path / "gone.yaml")
