"""The account of a harvest on the terminal."""

from __future__ import annotations

from pathlib import Path

from dsmoe_core.data.import_account import (
    MAX_NAMED,
    AccountEntry,
    Action,
    Conversion,
    ImportAccount,
    Kind,
    Reason,
)
from pipelines.cli.harvest_account import account_lines

FILE = Path("imports") / "round-0.json"


def left_out(number: int) -> AccountEntry:
    return AccountEntry(Kind.BOX, Action.LEFT_OUT, f"{number}.png", f"task {number}", Reason.NO_CLASS)


def test_counts_and_the_first_entries_are_shown() -> None:
    entries = tuple(map(left_out, range(MAX_NAMED + 7)))
    account = ImportAccount(
        images_in=40,
        images_taken=40,
        images_without_box=3,
        boxes_in=90 + len(entries),
        boxes_taken=90,
        entries=entries,
        conversions={Conversion.POLYGON: 5},
    )
    assert account.is_balanced
    images, boxes, conversion, *named, last = account_lines(account, FILE)
    assert all(number in images.split() for number in ("40", "(3", "0"))
    assert all(number in boxes.split() for number in ("107", "90", "0", "17"))
    assert "5" in conversion.split()
    assert [text.strip() for text in named] == [str(entry) for entry in entries[:MAX_NAMED]]
    assert "7" in last.split()
    assert str(FILE) in last


def test_complete_harvest_has_two_lines() -> None:
    account = ImportAccount(images_in=4, images_taken=4, boxes_in=9, boxes_taken=9)
    assert len(list(account_lines(account, FILE))) == 2
