"""The end of a log, for messages."""

from __future__ import annotations

from pathlib import Path

import pytest

from annotate.logs import log_tail


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (None, "  (nothing)"),
        (b"", "  (nothing)"),
        (b"one\ntwo\n", "  one\n  two"),
        (b"broken \xff byte", "  broken \ufffd byte"),
        ("".join(f"line {i}\n" for i in range(40)).encode(), "\n".join(f"  line {i}" for i in range(25, 40))),
    ],
    ids=["none", "empty", "short", "no text", "long"],
)
def test_the_last_lines_are_shown(tmp_path: Path, written: bytes | None, shown: str) -> None:
    if written is not None:
        (tmp_path / "log").write_bytes(written)
    assert log_tail(tmp_path / "log") == shown
